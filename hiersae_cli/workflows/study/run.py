"""``hiersae study``: an index -> a study folder -> answers -> their analysis."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hiersae_cli.config.dashboard import DashboardConfig
from hiersae_cli.config.study import (
    MOST_SETS,
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
    DESIGN_FILE,
    ITEMS_FILE,
    LINKS_FILE,
    PREREGISTRATION,
    REHEARSAL_FILE,
    SCHEMA_VERSION,
    STUDY,
    Links,
    StudyFiles,
    fingerprint,
    items_fingerprint,
    load_study,
    write_study,
)
from hiersae_cli.study import preregistration
from hiersae_cli.study.draw import Drawer
from hiersae_cli.study.protocol import CHECK, CONDITIONS, FLAT, HIERARCHY, SHUFFLED, Rules, allowed, session
from hiersae_cli.study.simulation import Raters
from hiersae_cli.study.store import HUMAN, Store, answers_csv

_OURS = {DESIGN_FILE, ITEMS_FILE, LINKS_FILE, PREREGISTRATION, "analysis", "analysis-simulated"}
_REHEARSAL = {REHEARSAL_FILE, f"{REHEARSAL_FILE}-wal", f"{REHEARSAL_FILE}-shm"}


def new(config: StudyNewConfig, console: Console | None = None) -> dict[str, Any]:
    """Draw a study and write its folder; returns the summary that ``--json`` prints.

    Raises as ``open_dashboard`` does, ``UsageError`` if not enough items can be drawn, and ``FileError`` if the folder
    exists or has answers.
    """
    from hiersae_cli.workflows.dashboard.run import open_dashboard

    console = console or Console.silent()
    folder = Path(config.out)
    if folder.is_dir() and any(folder.glob(f"{ANSWERS_FILE}*")):
        raise FileError(f"{folder}: has answers of raters", "Choose another --out; a study is made once.")
    refuse_folder(folder, config.overwrite, (_OURS | _REHEARSAL).__contains__)
    dashboard = DashboardConfig(
        run=config.run,
        acts=config.acts,
        baseline=config.baseline,
        model=config.model,
        index=config.index,
        tokens=config.tokens,
        batch=config.batch,
        device=config.device,
    )
    index, _ = open_dashboard(dashboard, console)
    if not config.model:
        console.warn("without --model tokens are numbers, which nobody can read")
    console.say("study: the post-hoc tree of the baseline, and items of every condition")
    drawer = Drawer(index, config.seed)
    sets = config.sets or drawer.available(config.tasks, MOST_SETS)
    if sets < (config.sets or MOST_SETS):
        console.say(f"study: {sets} matched sets of each task, as no more can be drawn from this index")
    if config.sets_per_rater > sets:
        raise UsageError(f"--sets-per-rater {config.sets_per_rater}: there are only {sets} sets", "Give fewer, or 0.")
    items, matching = drawer.draw(config.tasks, sets, config.checks)
    planned = preregistration.plan(config.tasks, sets, config.raters, config.effect, config.confidence, config.power)
    design: dict[str, Any] = {
        "tasks": list(config.tasks),
        "conditions": {task: list(CONDITIONS[task]) for task in config.tasks},
        "sets": {task: sets for task in config.tasks},
        "sets_text": f"{sets} matched sets of each task",
        "sets_per_rater": config.sets_per_rater,
        "raters": config.raters,
        "checks": sum(item.task == CHECK for item in items.values()),
        "effect": config.effect,
        "power": config.power,
        "confidence": config.confidence,
        "resamples": config.resamples,
        "seed": config.seed,
        "rules": asdict(Rules()),
        "planned": planned,
        "matching": matching,
    }
    made_of = index.file.header["made_of"]
    inputs = {
        config.run: made_of["run"],
        config.baseline: made_of["baseline"],
        **dict(zip(config.acts, made_of["acts"], strict=True)),
    }
    sha256 = items_fingerprint(items)
    description = header(STUDY, SCHEMA_VERSION, config, inputs) | {"items_sha256": sha256, "design": design}
    registered = preregistration.text(design, inputs, sha256)
    refuse_folder(folder, config.overwrite, (_OURS | _REHEARSAL).__contains__)  # another command may have made it
    with replacing_folder(folder, private={LINKS_FILE}) as temporary:
        write_study(temporary, description, items, registered)
        Links(temporary).ensure(config.raters)
    study = load_study(folder)
    length = len(session(study, 0))
    console.say(f"{folder}: {len(items):,} items, {length} in a session; {config.raters} raters")
    for task, figures in planned.items():
        power = figures["power"]
        needed = figures["sets_needed"].get(str(config.raters)) or "more than 4096"
        outlook = figures.get("why") or f"power {power:.0%}; {needed} sets would give {config.power:.0%}"
        console.say(f"  {task}: {outlook}")
        if power is not None and power < config.power:
            console.warn(f"{task}: {sets} sets and {config.raters} raters likely miss a difference of {config.effect}")
    console.say(f"deposit {folder / PREREGISTRATION} before raters begin")
    return {"study": str(folder), "items": len(items), "session": length, "planned": planned, "matching": matching}


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
        for number, token in enumerate(links.raters):
            console.say(f"rater {number}: {base}/r/{token}")

    with contextlib.suppress(KeyboardInterrupt):  # how serving ends
        answer(
            app(Study(study, store, links, exposed), host=config.host_address, public=config.public_url),
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
    raters = Raters(
        skill=config.skill,
        effect={HIERARCHY: config.hierarchy, FLAT: config.flat, SHUFFLED: config.shuffled},
        lapse=config.lapse,
    )
    number = config.raters or int(study.design["raters"])
    answers, planted = rehearse(study, raters, number, config.careless, config.seed)
    for name in _REHEARSAL:
        (study.path / name).unlink(missing_ok=True)
    store = open_store(study, "", REHEARSAL_FILE)
    if answers:
        store.add(*answers)
    store.close()
    console.say(f"{path}: {len(answers):,} answers of {number} simulated raters")
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
    from hiersae_cli.study.analysis import Settings, analyse, departures

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
    description = header(report.SCHEMA, report.SCHEMA_VERSION, config, {config.study: study.sha256})
    data = description | results
    report.write(out, data, answers_csv(answers))
    for departure in results["departures"]:
        console.warn(departure)
    for title, columns, rows in report.tables(results):
        console.table(title, columns, rows)
    console.say(f"{out}: report.md, analysis.json, tables and plots")
    return data
