"""What the pages ask of an index: every answer is made on demand, from a few sorted lists."""

from __future__ import annotations

from hiersae_cli.pages.model import BaselinePage, FeaturePage, Label, Overview, SearchHit, TextCodes, TokenSearch


class Index:
    """The answers to a dashboard's questions. All methods may be called from several threads."""

    def overview(self) -> Overview:
        """The whole tree in columns, with its labels as they are now."""
        raise NotImplementedError

    def ids(self) -> list[str]:
        """Every node, in the order of the overview."""
        raise NotImplementedError

    def feature(self, id: str) -> FeaturePage:
        """All of one node; raises ``KeyError`` for an id that there is not."""
        raise NotImplementedError

    def baseline_latents(self) -> int:
        """How many latents the baseline has; 0 without one."""
        raise NotImplementedError

    def baseline(self, latent: int) -> BaselinePage:
        """A latent of the baseline; raises ``KeyError`` where there is none."""
        raise NotImplementedError

    def fates(self, verdict: str, most: int = 100) -> list[BaselinePage]:
        """Latents of the baseline of a verdict (``kept``, ``split`` …), those that fire most first, without contexts."""
        raise NotImplementedError

    def search_label(self, query: str, most: int = 50) -> list[SearchHit]:
        """Features whose label, id or typical tokens contain the query's words."""
        raise NotImplementedError

    def search_token(self, query: str, most: int = 50) -> TokenSearch:
        """Features that fire where the text stands, white space included."""
        raise NotImplementedError

    def token_table(self) -> dict[str, list[str]]:
        """For a search without a server: the nodes that fire most at each token, best first, by the token's text."""
        raise NotImplementedError

    def encode_text(self, text: str) -> TextCodes:
        """What fires on a text, by the host model; raises ``UsageError`` where none was given, or for no text."""
        raise NotImplementedError

    def set_label(self, id: str, text: str, author: str) -> Label | None:
        """Label a feature, or with an empty text take its label away; saved at once. Raises ``KeyError``."""
        raise NotImplementedError

    def labels(self) -> dict[str, Label]:
        """Every label there is now, by node."""
        raise NotImplementedError
