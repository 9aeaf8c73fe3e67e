"""``hiersae study``: an index -> a study folder -> answers -> their analysis."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiersae_cli.config.study import (
    STUDY_TASKS,
    StudyAnalyzeConfig,
    StudyNewConfig,
    StudyServeConfig,
    StudySimulateConfig,
)
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, UsageError
from hiersae_cli.formats.atomic import refuse_folder, replacing_folder
from hiersae_cli.formats.provenance import header
from hiersae_cli.formats.study import (
    ANSWERS_FILE,
    CONSENT_FILE,
    DESIGN_FILE,
    ITEMS_FILE,
    LINKS_FILE,
    PREREGISTRATION,
    REHEARSAL_FILE,
    STUDY,
    VERSIONS,
    Item,
    Links,
    StudyFiles,
    fingerprint,
    items_fingerprint,
    load_study,
    read_consent,
    write_study,
)
from hiersae_cli.formats.text import counted
from hiersae_cli.study import preregistration
from hiersae_cli.study.consent import unmentioned
from hiersae_cli.study.duration import LONG, minutes, seconds
from hiersae_cli.study.protocol import CHECK, LABEL, MATCH, Rules, allowed, chances, session, writes_labels
from hiersae_cli.study.simulation import Raters
from hiersae_cli.study.store import HUMAN, Store
from hiersae_cli.workflows.study.sources import Materials, from_file, from_runs, warn_of_dense

_OURS = {DESIGN_FILE, ITEMS_FILE, CONSENT_FILE, LINKS_FILE, PREREGISTRATION, "analysis", "analysis-simulated"}
_REHEARSAL = {REHEARSAL_FILE, f"{REHEARSAL_FILE}-wal", f"{REHEARSAL_FILE}-shm"}


def new(config: StudyNewConfig, console: Console | None = None) -> dict[str, Any]:
    """Make a study and write its folder; returns the summary that ``--json`` prints.

    Raises as ``from_runs`` and ``from_file`` do, ``UsageError`` if not enough items can be drawn, and ``FileError`` if
    the folder exists or has answers.
    """
    console = console or Console.silent()
    folder = Path(config.out)
    if folder.is_dir() and any(folder.glob(f"{ANSWERS_FILE}*")):
        raise FileError(f"{folder}: has answers of raters", "Choose another --out; a study is made once.")
    refuse_folder(folder, config.overwrite, (_OURS | _REHEARSAL).__contains__)
    consent = read_consent(config.consent) if config.consent else ""
    source = from_file(config, console) if config.items else from_runs(config, console)
    most = max(source.sets.values())
    if config.sets_per_rater > most:
        raise UsageError(f"--sets-per-rater {config.sets_per_rater}: there are only {most} sets", "Give fewer, or 0.")
    design: dict[str, Any] = {
        "tasks": [task for task in STUDY_TASKS if task in source.sets],
        "conditions": source.conditions,
        "sets": source.sets,
        "materials": source.materials,
        "sets_per_rater": config.sets_per_rater,
        "raters": config.raters,
        "checks": sum(item.task == CHECK for item in source.items.values()),
        "effect": config.effect,
        "power": config.power,
        "confidence": config.confidence,
        "resamples": config.resamples,
        "seed": config.seed,
        "rules": asdict(Rules()),
        "matching": source.matching,
        "consent_sha256": fingerprint(consent) if consent else "",
    }
    # The sessions of the first and of the last rater differ: one may write labels, the other match them.
    files = StudyFiles(folder, {"design": design}, source.items)
    sessions = [session(files, rater) for rater in (0, config.raters - 1)]
    design["minutes"] = max(map(minutes, sessions))
    guessing = chances(files)
    design["planned"] = preregistration.plan(design, guessing)
    sha256 = items_fingerprint(source.items)
    description = header(STUDY, VERSIONS[STUDY], config, source.inputs) | {"items_sha256": sha256, "design": design}
    registered = preregistration.text(design, source.inputs, sha256, guessing)
    refuse_folder(folder, config.overwrite, (_OURS | _REHEARSAL).__contains__)  # another command may have made it
    with replacing_folder(folder, private={LINKS_FILE}) as temporary:
        write_study(temporary, description, source.items, registered, consent)
        Links(temporary).ensure(config.raters)
    length = max(map(len, sessions))
    console.say(
        f"{folder}: {len(source.items):,} items; {counted(config.raters, 'rater')}, {length} questions each, about "
        f"{design['minutes']} minutes"
    )
    _warn(config, console, design, source, sessions)
    console.say(f"deposit {folder / PREREGISTRATION} before raters begin")
    return {
        "study": str(folder),
        "items": len(source.items),
        "session": length,
        "minutes": design["minutes"],
        "planned": design["planned"],
        "matching": source.matching,
    }


def _warn(
    config: StudyNewConfig, console: Console, design: dict[str, Any], source: Materials, sessions: list[list[Item]]
) -> None:
    """Say what a session lasts, what the study can find, and what raters would not be told or could not answer."""
    if design["minutes"] > LONG:
        most = max(source.sets.values())
        per_set = max(map(sum, ([seconds(item) for item in items] for items in sessions))) / 60
        per_set /= min(config.sets_per_rater or most, most)
        fewer = max(1, int((LONG - 3) / per_set))
        advice = f"--sets-per-rater {fewer} stays below" if fewer < most else "ask for fewer --tasks"
        console.warn(f"a session of {design['minutes']} minutes is long, and raters tire after {LONG:.0f}: {advice}")
    for task, figures in design["planned"].items():
        power, raters = figures["power"], config.raters
        needed = figures["sets_needed"].get(str(raters)) or "more than 4096"
        reached = "" if power is None else preregistration.power_text(power, config.confidence)
        sets = design["sets"][LABEL if task == MATCH else task]
        enough = [number for number, count in figures["sets_needed"].items() if count and count <= sets]
        more = f", or {enough[0]} raters," if enough and int(enough[0]) > raters else ""
        outlook = figures.get("why") or f"power {reached}; {needed} sets{more} would give {config.power:.0%}"
        console.say(f"  {task}: {outlook}")
        if power is not None and power < config.power:
            console.warn(
                f"{task}: {counted(sets, 'set')} and {counted(raters, 'rater')} likely miss a difference of "
                f"{config.effect}"
            )
    if LABEL in source.conditions:
        half = sum(writes_labels(design, rater) for rater in range(config.raters))
        if half == config.raters:
            console.warn("one rater writes labels, and nobody matches them: plan more --raters")
        else:
            console.say(f"raters 0 to {half - 1} write labels; the others match them, so send their links afterwards")
    warn_of_dense(source.items.values(), config.most_marks, console)
    if not config.consent:
        console.warn("without --consent raters are not told who asks, whom to write to, or what they are paid")
    elif missing := unmentioned(read_consent(config.consent)):
        console.warn(f"{config.consent}: no heading says anything about {', '.join(missing)}")


def open_store(study: StudyFiles, database: str, file: str = ANSWERS_FILE) -> Store:
    """The answers of a study, by URL or in its folder."""
    path = (study.path / file).absolute()
    return Store(database or f"sqlite:///{path}", study.sha256)


def serve(config: StudyServeConfig, console: Console | None = None) -> dict[str, Any]:
    """Serve until Ctrl-C; returns how many answers there are. Raises ``UsageError`` if the address is not available."""
    from hiersae_cli.pages.server import LOOPBACK, answer
    from hiersae_cli.study.live import Study
    from hiersae_cli.study.web import app

    console = console or Console.silent()
    study = load_study(config.study)
    links = Links(config.study)
    links.ensure(max(config.raters, int(study.design["raters"])))
    store = open_store(study, config.database)
    exposed = config.host_address not in LOOPBACK and not config.public_url.startswith("https://")
    if exposed:
        console.warn(
            f"--host-address {config.host_address}: others can reach this server, and it speaks no TLS: links "
            "and answers can be read on the way. Put a proxy with TLS in front of it, and name its address with "
            "--public-url."
        )

    def ready(address: str) -> None:
        base = (config.public_url or address).rstrip("/")
        console.say(f"serving at {address} (Ctrl-C ends it); answers go to {store.place}")
        console.say(f"administrator: {base}/admin/{links.administrator}")
        console.say(f"any rater, such as of a crowd platform: {base}/join/{served.common_token}")
        for number, token in enumerate(links.raters):
            console.say(f"rater {number}: {base}/r/{token}")

    served = Study(study, store, links, exposed, config.completion_code, config.return_url)
    with contextlib.suppress(KeyboardInterrupt):  # how serving ends
        answer(
            app(served, host=config.host_address, public=config.public_url),
            config.host_address,
            config.port,
            ready,
        )
    count = len(store.answers(kind=HUMAN))
    store.close()
    return {"study": config.study, "answers": count}


def simulate(config: StudySimulateConfig, console: Console | None = None) -> dict[str, Any]:
    """Answer the study by raters of known ability, into the rehearsal's file; returns the planted shares."""
    from hiersae_cli.study.rehearsal import rehearse

    console = console or Console.silent()
    study = load_study(config.study)
    path = study.path / REHEARSAL_FILE
    if path.exists() and not config.overwrite and _has_answers(study):
        raise FileError(f"{path}: already exists", "Give --overwrite to rehearse again.")
    known = {name for task in study.design["conditions"] for name in study.conditions(task)}
    if unknown := {text.rpartition("=")[0] for text in config.logit} - known:
        raise UsageError(
            f"--logit {min(unknown)}: the study has no such condition", f"It has {', '.join(sorted(known))}."
        )
    raters = Raters(skill=config.skill, effect=config.effects(), lapse=config.lapse)
    number = config.raters or int(study.design["raters"])
    answers, planted = rehearse(study, raters, number, config.careless, config.seed)
    for name in _REHEARSAL:
        (study.path / name).unlink(missing_ok=True)
    store = open_store(study, "", REHEARSAL_FILE)
    if answers:
        store.add(*answers)
    store.close()
    console.say(f"{path}: {counted(len(answers), 'answer')} of {counted(number, 'simulated rater')}")
    return {"answers": len(answers), "raters": number, "planted": planted}


def _has_answers(study: StudyFiles) -> bool:
    """Whether there is a rehearsal; one that was killed may have left a database without answers."""
    store = open_store(study, "", REHEARSAL_FILE)
    answers = store.answers()
    store.close()
    return bool(answers)


def analyze(config: StudyAnalyzeConfig, console: Console | None = None) -> dict[str, Any]:
    """Analyse the answers and write the results; returns what ``analysis.json`` holds.

    Raises ``FileError`` if there are no answers, or if results exist.
    """
    from hiersae_cli.study import report
    from hiersae_cli.study.analysis import Settings, analyse, departures, included
    from hiersae_cli.study.answers import to_publish
    from hiersae_cli.study.sentences import sentences

    console = console or Console.silent()
    study = load_study(config.study)
    kind = "analysis-simulated" if config.simulated else "analysis"
    out = Path(config.out or study.path / kind)
    refuse_folder(out, config.overwrite, report.is_ours)
    file = REHEARSAL_FILE if config.simulated else ANSWERS_FILE
    if not config.database and not (study.path / file).exists():
        verb = "simulate" if config.simulated else "serve"
        raise FileError(f"{study.path / file}: no answers yet", f"First: hiersae study {verb} {config.study}")
    store = open_store(study, config.database, file)
    answers, stopped = store.answers(), store.stopped()
    store.close()
    if not answers:
        raise FileError(f"{store.place}: no answers yet", "Wait until a rater has answered.")
    for answer in answers:
        if answer.item not in study.items or not allowed(study.items[answer.item], answer.value):
            problem = f"{answer.value!r} is no answer to an item {answer.item!r}"
            raise FileError(f"{store.place}: damaged: {problem}", "Restore it from a copy.")
    design = study.design
    settings = Settings(
        confidence=config.confidence or float(design["confidence"]),
        resamples=config.resamples or int(design["resamples"]),
        seed=int(design["seed"]),
        keep_all=config.keep_all,
    )
    results = analyse(study, answers, settings)
    registered = study.path / PREREGISTRATION
    text = registered.read_text(encoding="utf-8") if registered.exists() else ""
    results["departures"] = departures(
        study, answers, settings, text, fingerprint(design), bool(stopped), config.simulated
    )
    results["sentences"] = sentences(results)
    results["materials"] = design.get("materials", "")
    description = header(report.SCHEMA, report.SCHEMA_VERSION, config, {config.study: study.sha256})
    data = description | results
    report.write(out, data, to_publish(study, answers, included(study, answers, settings)))
    for departure in results["departures"]:
        console.warn(departure)
    for exclusion in report.excluded(results):
        console.say(f"excluded: {exclusion}")
    if not results["answers_analysed"]:
        console.warn(f"no answers are left to analyse: {report.account(results)}")
    for sentence in results["sentences"]:
        console.show(sentence)
    for title, columns, rows in report.tables(results):
        console.table(title, columns, rows)
    console.say(
        f"{out}: {', '.join(report.file_name(results, name) for name in ('report.md', 'analysis.json'))}, tables and "
        f"plots; publish {report.file_name(results, 'answers.csv')}, never the database or {LINKS_FILE}"
    )
    return data
