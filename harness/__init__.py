"""spikebench's harness: interfaces, runs, measurements, records and reports. It knows no method and no task."""
