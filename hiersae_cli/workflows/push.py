"""``hiersae push``: a run, its report and its tree -> a repository of the Hugging Face hub, with a model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hiersae_cli.config.push import PushConfig
from hiersae_cli.console import Console
from hiersae_cli.errors import FileError, HierSAEError, UsageError
from hiersae_cli.formats.atomic import replacing_folder
from hiersae_cli.formats.report import load_report
from hiersae_cli.formats.run import Run, RunFolder, load_run
from hiersae_cli.formats.tree import family_lines, load_tree
from hiersae_cli.render.model_card import card

_REPORT, _TREE, _CARD = "report.json", "tree.json", "README.md"


def push(config: PushConfig, console: Console | None = None) -> dict[str, Any]:
    """Upload a finished run in one commit; returns the repository, its address and the names of the files.

    Raises ``UsageError`` and ``FileError``, before anything is uploaded, if the run is unfinished or the report or tree
    belongs to another run, ``HierSAEError`` if the hub refuses.
    """
    console = console or Console.silent()
    if config.out and Path(config.out).exists():
        raise FileError(f"{config.out}: already exists", "Choose another --out.")
    folder, trained = RunFolder(config.run), load_run(config.run)
    if not folder.is_complete():
        raise FileError(f"{config.run}: training has not ended", "Run the same 'hiersae train' command again first.")
    files: dict[str, bytes | Path] = {path.name: path for path in (folder.config_file, folder.model_file)}
    if folder.metrics_file.exists():
        files[folder.metrics_file.name] = folder.metrics_file
    figures, families = _figures(config, trained), _families(config, trained)
    if config.report:
        files[_REPORT] = Path(config.report)
    if config.tree:
        files[_TREE] = Path(config.tree)
    host_license = _license_of(trained.header["host"])
    license = config.license or host_license
    if not license:
        console.warn("the licence of the host is not known, so the card names none: look it up, and give --license")
    text = card(
        trained.name,
        config.repository,
        trained.header,
        folder.last_metrics(),
        figures,
        families,
        license,
        host_license,
    )
    files[_CARD] = text.encode()
    result = {"repository": config.repository, "files": sorted(files)}
    if config.out:
        with replacing_folder(Path(config.out)) as out:
            for name, content in files.items():
                (out / name).write_bytes(content.read_bytes() if isinstance(content, Path) else content)
        console.say(f"{config.out}: {', '.join(sorted(files))}; nothing was pushed")
        return {**result, "folder": config.out}
    address = _upload(config, files)
    console.say(f"{address}: {', '.join(sorted(files))}")
    console.say(f"to load it: hiersae.load_run('hf://{config.repository}')")
    return {**result, "address": address}


def _figures(config: PushConfig, trained: Run) -> dict[str, Any]:
    """The figures of the run in the report; empty without one."""
    if not config.report:
        return {}
    report = load_report(config.report)
    names = [name for name, subject in report["subjects"].items() if subject.get("sha256") == trained.sha256]
    if not names:
        raise UsageError(f"--report {config.report}: does not measure {config.run}", "Evaluate this run, then push it.")
    figures: dict[str, Any] = report["runs"][names[0]]
    return figures


def _families(config: PushConfig, trained: Run) -> list[str]:
    """Lines of the most telling families of the tree; empty without one."""
    if not config.tree:
        return []
    tree = load_tree(config.tree)
    if trained.sha256 not in tree.header["inputs"].values():
        raise UsageError(f"--tree {config.tree}: is of another run than {config.run}", "Export the tree of this run.")
    return family_lines(tree)


def _license_of(host: dict[str, Any]) -> str:
    """The licence that the host's card names, on the hub or in its folder; "" if there is none."""
    from huggingface_hub import HfApi, ModelCard

    try:
        file = Path(host["name"]) / _CARD
        if file.exists():
            return str(ModelCard.load(file).data.get("license") or "")
        if Path(host["name"]).exists() or len(str(host.get("fingerprint"))) != 40:  # a file, a folder or synthetic rows
            return ""
        data = HfApi().model_info(host["name"]).card_data
        return str((data and data.get("license")) or "")
    except Exception:  # a card that cannot be read or reached names no licence
        return ""


def _upload(config: PushConfig, files: dict[str, bytes | Path]) -> str:
    """Write the files in one commit; returns the address of the repository."""
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    api = HfApi(library_name="hiersae")
    try:
        address = api.create_repo(config.repository, private=config.private or None, exist_ok=True)
        if config.branch != "main":
            api.create_branch(config.repository, branch=config.branch, exist_ok=True)
        api.create_commit(
            config.repository,
            [
                CommitOperationAdd(name, str(content) if isinstance(content, Path) else content)
                for name, content in sorted(files.items())
            ],
            commit_message=config.message or f"Add {Path(config.run).resolve().name}",
            revision=config.branch,
        )
    except OfflineModeIsEnabled:
        raise HierSAEError("HF_HUB_OFFLINE is set, so nothing was pushed", "Unset it, or use -o to look.") from None
    except HfHubHTTPError as error:
        said = " ".join(str(error.server_message or error).split())
        raise HierSAEError(f"{config.repository}: the hub refuses: {said}", "Log in first: hf auth login.") from None
    except OSError as error:
        if error.filename:
            raise
        said = " ".join(str(error).split())
        raise HierSAEError(f"{config.repository}: the hub cannot be reached: {said}", "Check the network.") from None
    return str(address)
