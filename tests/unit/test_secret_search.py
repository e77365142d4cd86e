"""The search for secrets in an inventory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lab import secret_search

if TYPE_CHECKING:
    from pathlib import Path

TEXTS = (
    "# A key pair\ndoorward1-private c2VjcmV0\ndoorward1 cHVibGlj web1\n",
    "KEY_BASE64: a2V5\nHMAC_KEY_BASE64: aG1hYw==\n",
    "CLIENT     doorward1 cGVlcg== controller\nPSK_BASE64 cHNr\n# key SHA256:abc\n",
)


def test_what_is_secret_in_key_files_is_known() -> None:
    assert secret_search.secrets_in(TEXTS) == {"c2VjcmV0", "a2V5", "aG1hYw==", "cHNr"}


def test_a_planted_secret_is_found_behind_links_too(tmp_path: Path) -> None:
    inventory, linked = tmp_path / "inventory", tmp_path / "state"
    (inventory / "group_vars").mkdir(parents=True)
    (inventory / "group_vars/all.yml").write_text("x: 1\n")
    (linked / "web").mkdir(parents=True)
    (linked / "web/doorward.yml").write_text("doorward_host_key: doorward1 cHVibGlj\n")
    (inventory / "host_vars").symlink_to(linked)
    secrets = secret_search.secrets_in(TEXTS)
    assert secret_search.files_with(secrets, inventory) == []
    assert len(secret_search.files_of(inventory)) == 2
    file = secret_search.planted("aG1hYw==", inventory, tmp_path / "copy")
    assert secret_search.files_with(secrets, tmp_path / "copy") == [file]
    (linked / "web/main.yml").write_text("key: c2VjcmV0\n")
    assert secret_search.files_with(secrets, inventory) == [inventory / "host_vars/web/main.yml"]
