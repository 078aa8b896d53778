"""Records that are there twice, or that took figures from another: times of two runs never agree to the last digit."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Sequence

from harness.record import Record, decode_bits
from harness.verify.candidate import Candidate, error, warning

FEWEST = 10  # step times that do not agree by chance
WRONG = 10  # items answered wrongly by two runs, and by no coincidence the same


def mark_copies(candidates: Sequence[Candidate], reference: Sequence[Candidate]) -> None:
    """Add findings to candidates that repeat another, or a reference record; files that are both are compared once."""
    own = {each.path.resolve() for each in candidates}
    others = [each for each in reference if each.path.resolve() not in own]
    _same_key(candidates, others)
    _same_run(candidates)
    _same_figures(candidates, others)
    _same_learning(candidates, others)


def _same_key(candidates: Sequence[Candidate], others: Sequence[Candidate]) -> None:
    seen: dict[str, Candidate] = {}
    there = {each.record.key: each for each in others if each.record}
    for each in candidates:
        if each.record is None:
            continue
        first = seen.setdefault(each.record.key, each)
        if first is not each:
            each.findings.append(error("copies", f"the same run key as {first.path.name}"))
        if (other := there.get(each.record.key)) is not None:
            same = each.sha256 == other.sha256
            text = "is among the reference records already" if same else "is measured a second time: a reference record has its key"
            each.findings.append(warning("copies", f"this run {text} ({other.path.parent.name}/)"))


def _same_run(candidates: Sequence[Candidate]) -> None:
    """Find several records of one seed: of one code they cannot be, of several the tables take the latest."""
    groups: dict[tuple, list[tuple[Candidate, Record]]] = defaultdict(list)
    for each in candidates:
        r = each.record
        if r is not None:
            device = r.environment.device if r.environment else r.spec.device
            spec = r.spec
            groups[r.label, spec.task, spec.track, spec.budget, spec.precision, spec.threads, spec.seed, device].append((each, r))
    for members in groups.values():
        members.sort(key=lambda pair: pair[1].started)
        for number, (each, r) in enumerate(members[:-1]):
            latest = members[-1][0]
            alike = next((other for other, s in members[number + 1 :] if r.settings == s.settings and _torch(r) == _torch(s)), None)
            if alike is not None and alike.record is not None and alike.record.key != r.key:
                each.findings.append(error("copies", f"two records of one run under two keys: also {alike.path.name}"))
            elif alike is None:
                each.findings.append(warning("copies", f"a later record of this seed is there, made by other code: {latest.path.name}"))


def _torch(record: Record) -> str | None:
    return record.environment.versions.get("torch") if record.environment else None


def _prints(record: Record) -> Iterator[tuple[str, Hashable]]:
    """Yield figures that no two runs share, with what they are."""
    if record.time is not None:
        for phase in record.time.phases:
            if len(phase.total) >= FEWEST:
                yield "step times", tuple(phase.total)
        if record.time.yardstick:
            yield "yardsticks", tuple(record.time.yardstick)
    if record.inference is not None and len(record.inference.latency_samples) > 1:
        yield "samples of latency", tuple(record.inference.latency_samples)
    if record.trace:
        yield "seconds of epochs", tuple(epoch.seconds for epoch in record.trace)


def _same_figures(candidates: Sequence[Candidate], others: Sequence[Candidate]) -> None:
    seen: dict[tuple[str, Hashable], Candidate] = {}
    own = {id(each) for each in candidates}
    for each in (*others, *candidates):
        copied: dict[str, list[str]] = {}
        for what in _prints(each.record) if each.record else ():
            first = seen.setdefault(what, each)
            if first is not each and each.sha256 != first.sha256:
                copied.setdefault(first.name, []).append(what[0])
        for name, parts in copied.items() if id(each) in own else ():
            told = ", ".join(dict.fromkeys(parts))
            each.findings.append(error("copies", f"to the last digit those of {name}: {told}"))


def _same_learning(candidates: Sequence[Candidate], others: Sequence[Candidate]) -> None:
    """Find runs of other seeds, or of other methods, that learned or answered exactly as another did."""
    own = {id(each) for each in candidates}
    losses: dict[tuple, Candidate] = {}
    answers: dict[tuple, Candidate] = {}
    for each in (*others, *candidates):
        r = each.record
        if r is None or r.accuracy is None or r.status != "ok":
            continue
        wrong = r.accuracy.items - sum(decode_bits(r.accuracy.correct, r.accuracy.items)) if _hexadecimal(r.accuracy.correct) else 0
        path = tuple(epoch.loss for epoch in r.trace)
        first = losses.setdefault((r.spec.task, r.label, path), each) if len(path) > 1 or (path and wrong) else each
        told = False
        if first.record is not None and first.record.spec.seed != r.spec.seed and id(each) in own:
            each.findings.append(error("copies", f"every loss in training is that of {first.name}, another seed"))
            told = True
        first = answers.setdefault((r.spec.task, r.label, r.accuracy.correct), each) if wrong >= WRONG else each
        if first.record is not None and first.record.spec.seed != r.spec.seed and id(each) in own and not told:
            text = f"wrong on exactly those {wrong} of {r.accuracy.items} items that {first.name}, another seed, is wrong on"
            each.findings.append(warning("copies", text))


def _hexadecimal(text: str) -> bool:
    try:
        bytes.fromhex(text)
    except ValueError:
        return False
    return True
