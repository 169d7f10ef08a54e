"""A WordNet of eleven nouns in the files' own format, and a CLIP whose towers fit on a page."""

from __future__ import annotations

from pathlib import Path

import open_clip
import pytest
import torch
from open_clip import CLIP
from torch import nn

from adapters.training.wordnet import WordNet, read_wordnet

WIDTH = 16

LICENCE = "  1 This software and database is being provided to you, the LICENSEE.\n"
DATA = """\
00000001 03 n 01 entity 0 001 ~ 00000002 n 0000 | that which exists
00000002 05 n 02 animal 0 beast 0 003 @ 00000001 n 0000 + 00000005 n 0101 @ 00000099 v 0101 | alive; "wild beasts"
00000003 05 n 02 dog 0 domestic_dog 0 001 @ 00000002 n 0000 | a pet; man's friend; "the dog barked"
00000004 05 n 01 puppy 0 001 @ 00000003 n 0000 | a young dog
00000005 18 n 02 person 0 individual 0 001 @ 00000001 n 0000 | a human being
00000006 18 n 01 man 0 001 @ 00000005 n 0000 | an adult person
00000007 06 n 02 turtleneck 0 turtle 0 001 @ 00000001 n 0000 | a sweater with a high collar
00000008 05 n 01 turtle 0 001 @ 00000002 n 0000 | a reptile with a shell
00000009 13 n 01 orange 0 001 @ 00000001 n 0000 | a round citrus fruit
00000010 04 n 01 jump 0 001 @ 00000001 n 0000 | the act of jumping
00000011 05 n 01 Canidae 0 001 @ 00000002 n 0000 | the dog family
"""
INDEX = """\
animal n 1 1 @ 1 1 00000002
beast n 1 1 @ 1 0 00000002
canidae n 1 1 @ 1 0 00000011
dog n 1 2 @ ~ 1 1 00000003
domestic_dog n 1 1 @ 1 0 00000003
entity n 1 1 ~ 1 1 00000001
individual n 1 1 @ 1 0 00000005
jump n 1 1 @ 1 1 00000010
man n 1 1 @ 1 1 00000006
orange n 1 1 @ 1 0 00000009
person n 1 1 @ 1 1 00000005
puppy n 1 1 @ 1 0 00000004
turtle n 2 1 @ 2 0 00000007 00000008
turtleneck n 1 1 @ 1 0 00000007
"""
COUNTS = "dog%1:05:00:: 1 42\ndog%1:18:01:: 2 3\ndog%2:38:00:: 1 7\nman%1:18:00:: 1 100\n"


@pytest.fixture(scope="session")
def wordnet_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wordnet")
    (folder / "data.noun").write_text(LICENCE + DATA, encoding="latin-1")
    (folder / "index.noun").write_text(LICENCE + INDEX, encoding="latin-1")
    (folder / "index.adj").write_text(LICENCE + "orange a 1 0 1 0 00000077\n", encoding="latin-1")
    (folder / "cntlist.rev").write_text(COUNTS, encoding="latin-1")
    return folder


@pytest.fixture
def wordnet(wordnet_folder: Path) -> WordNet:
    return read_wordnet(wordnet_folder)


@pytest.fixture
def model() -> CLIP:
    """Random towers; the image projection is `visual.head.proj`, as in open_clip's timm towers, from 6 features."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        clip = CLIP(
            embed_dim=WIDTH,
            vision_cfg=open_clip.CLIPVisionCfg(layers=1, width=WIDTH, head_width=8, patch_size=8, image_size=8),
            text_cfg=open_clip.CLIPTextCfg(context_length=32, vocab_size=49408, width=WIDTH, heads=4, layers=1),
        )
        clip.visual.head = nn.Sequential()
        clip.visual.head.proj = nn.Linear(6, WIDTH)
    return clip
