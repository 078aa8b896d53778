"""Parts: neurons, surrogates, synapses, normalisation, backbones, heads, conversion."""
