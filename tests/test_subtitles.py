"""Subtitles of every kind become cues, and what can't be read is told by its number."""

from __future__ import annotations

import json

import pytest

from voice_core.errors import RequestError
from voice_core.subtitles import Cue, read_cues, write_captions

SRT = """1
00:00:01,000 --> 00:00:02,500
Hello there.

2
00:00:03,000 --> 00:00:04,000
<i>How are</i>
{\\an8}<font color="red">you?</font>
"""


def texts(source: str | bytes, *speakers: str) -> list[str]:
    return [cue.text for cue in read_cues(source, speakers).cues]


def test_srt_is_read_with_its_lines_joined_and_its_formatting_gone() -> None:
    assert read_cues(SRT).cues == (Cue(1.0, 2.5, "Hello there."), Cue(3.0, 4.0, "How are you?"))


@pytest.mark.parametrize(
    "source",
    [
        SRT.replace("\n", "\r\n"),
        SRT.replace("\n", "\r"),
        "\ufeff" + SRT,
        SRT.encode("utf-8-sig"),
        SRT.replace(".\n\n2", ".\n2"),
        SRT.replace("1\n00", "00").replace("\n2\n", "\n"),
        SRT.replace("02,500", "02.500 X1:10 X2:20"),
        SRT + "\n\n\n",
        SRT.replace("\n", "\n\n"),
        SRT.replace("\n", "\r\r\n"),
    ],
    ids=[
        "crlf",
        "cr",
        "bom",
        "bom bytes",
        "no empty line",
        "no numbers",
        "settings",
        "empty lines at the end",
        "lines apart",
        "crcrlf",
    ],
)
def test_sloppy_files_are_read_all_the_same(source: str | bytes) -> None:
    assert read_cues(source).cues == read_cues(SRT).cues


def test_a_number_that_is_said_stays() -> None:
    source = "1\n00:00:01,000 --> 00:00:02,000\nThe answer is\n42\n\n2\n00:00:03,000 --> 00:00:04,000\nIt is\n42\n"
    assert texts(source) == ["The answer is 42", "It is 42"]


def test_a_number_apart_from_its_times_is_not_said_and_one_that_ends_a_text_is() -> None:
    apart = "1\n00:00:01,000 --> 00:00:02,000\nHi\n\n2\n\n00:00:03,000 --> 00:00:04,000\nYou\n"
    assert [cue.text for cue in read_cues(apart).cues] == ["Hi", "You"]
    bare = "00:00:01,000 --> 00:00:02,000\nThe year\n1984\n00:00:03,000 --> 00:00:04,000\nYou\n"
    assert [cue.text for cue in read_cues(bare).cues] == ["The year 1984", "You"]


def test_without_numbers_what_stands_apart_is_said_too() -> None:
    bare = "00:01,000 --> 00:02,000\nThe year:\n\n1984\n\n00:03,000 --> 00:04,000\n42\n\n00:05,000 --> 00:06,000\nYou\n"
    assert texts(bare) == ["The year: 1984", "42", "You"]


def test_numbers_may_begin_anywhere() -> None:
    assert texts("0\n00:01,000 --> 00:02,000\nHi\n\n7\n\n00:03,000 --> 00:04,000\nYou\n") == ["Hi", "You"]


def test_a_speaker_is_one_line() -> None:
    cue = {"start_seconds": 0, "end_seconds": 1, "text": "Hi"}
    cues = read_cues([cue | {"speaker": "Ann\n\nLee"}, cue | {"speaker": " "}]).cues
    assert [cue.speaker for cue in cues] == ["Ann Lee", None]


def test_an_empty_line_inside_a_cue_of_srt_loses_nothing() -> None:
    assert texts("00:00:01,000 --> 00:00:02,000\nOne\n\nTwo\n\n2\n00:00:03,000 --> 00:00:04,000\nThree") == [
        "One Two",
        "Three",
    ]


def test_japanese_lines_meet_without_a_space() -> None:
    assert texts("00:01,000 --> 00:02,000\nこれは\nテストです。\nOK?") == ["これはテストです。 OK?"]


def test_what_only_looks_like_a_tag_is_text() -> None:
    assert texts("00:01,000 --> 00:02,000\nI <3 you, x < y and <World> &amp; all") == [
        "I <3 you, x < y and <World> & all"
    ]


VTT = """WEBVTT - a film
Kind: captions

STYLE
::cue { color: red }

NOTE nobody says this

intro
00:01.000 --> 00:02.500 align:start position:0%
<v.loud Ann>Hello <c.red>there</c>.</v>

NOTE
nor this

01:00:03.000 --> 01:00:04.000
<v Bob>How <00:03.500>are &lt;you&gt;?
<ruby>漢字<rt>かんじ</rt></ruby>
"""


def test_vtt_is_read_with_its_voices_and_without_remarks_and_identifiers() -> None:
    assert read_cues(VTT).cues == (
        Cue(1.0, 2.5, "Hello there.", "Ann"),
        Cue(3603.0, 3604.0, "How are <you>? 漢字", "Bob"),
    )


def test_a_tag_that_never_ends_takes_no_longer_than_one_that_does() -> None:
    """Looked at again from each of its spaces, it would take hours."""
    assert texts("WEBVTT\n\n00:01.000 --> 00:02.000\n<v" + " " * 500_000) == ["<v"]


def test_vtt_may_begin_with_a_cue_right_after_its_header() -> None:
    assert texts("WEBVTT\n00:01.000 --> 00:02.000\nHello") == ["Hello"]


def test_json_is_read_as_a_list_and_as_text() -> None:
    cues: list[object] = [{"start_seconds": 1, "end_seconds": 2.5, "text": " Hello\nthere. ", "speaker": "Ann"}]
    expected = (Cue(1.0, 2.5, "Hello there.", "Ann"),)
    assert read_cues(cues).cues == read_cues(json.dumps(cues)).cues == read_cues(json.dumps(cues, indent=1)).cues
    assert read_cues(cues).cues == expected


def test_a_name_in_brackets_is_a_speaker_only_where_it_is_said_to_be_one() -> None:
    source = "00:01,000 --> 00:02,000\n[Ann] Hello.\n\n00:03,000 --> 00:04,000\n[laughs] Hello."
    assert read_cues(source, ["Ann"]).cues == (Cue(1, 2, "Hello.", "Ann"), Cue(3, 4, "[laughs] Hello."))


def test_cues_without_text_are_left_out_and_told() -> None:
    sheet = read_cues(
        "1\n00:01,000 --> 00:01,000\n \n\n2\n00:03,000 --> 00:04,000\nHello\n\n3\n00:05,000 --> 00:06,000\n"
    )
    assert [cue.text for cue in sheet.cues] == ["Hello"]
    assert (sheet.numbers, sheet.empty_numbers) == ((2,), (1, 3))


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (SRT.replace("00:00:03,000", "00:00:0x,000"), "cue 2: line 6: '00:00:0x,000' is no time"),
        (SRT.replace("00:00:03,000", "00:61:03,000"), "cue 2: line 6: '00:61:03,000' is no time"),
        (SRT.replace("00:00:04,000", ""), "cue 2: line 6: '00:00:03,000 -->' is no time of begin and end"),
        (SRT.replace("00:00:04,000", "00:00:03,000"), "cue 2: ends at 3 s, and begins at 3 s"),
        (SRT.replace("00:00:02,500", "00:00:00,500"), "cue 1: ends at 0.5 s, and begins at 1 s"),
        (SRT.replace("00:00:01,000", "-00:00:01,000"), "cue 1: begins at -1 s, before the film does"),
        ("A title\n" + SRT, "line 1: 'A title' stands before the first cue's times"),
        ("Hello there.", "neither SRT nor WebVTT nor a list in JSON"),
        ("", "neither SRT nor WebVTT nor a list in JSON"),
        ("WEBVTT\n\n", "hold nothing to say"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\nHello\n\nthere", "line 6: 'there' belongs to no cue"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\nHi\n00:03.000 --> 00:04.000\nHo", "cue 1: has a second line of times"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000\n<v Ann>Hi</v> <v Bob>Ho</v>", "cue 1: is spoken by 'Ann' and 'Bob'"),
        (b"1\n00:00:01,000 --> 00:00:02,000\n\xe4\xf6\n", "not UTF-8: byte 32"),
        ('[{"start_seconds": 1', "are not JSON"),
        ('[{"start_seconds": "1", "end_seconds": 2, "text": "a"}]', "cue 1: start_seconds: must be a number"),
        ('[{"start_seconds": NaN, "end_seconds": 2, "text": "a"}]', "cue 1: start_seconds: must be a number"),
        ('[{"start_seconds": 1, "end_seconds": 2}]', "cue 1: text: must be a text"),
        ('[{"start_seconds": 1, "end_seconds": 2, "text": "a", "voice": "b"}]', "cue 1: 'voice' is not one of"),
        ('[{"start_seconds": 1, "end_seconds": 2, "text": "a", "speaker": 5}]', "cue 1: speaker: must be a text"),
        (
            r'[{"start_seconds": 1, "end_seconds": 2, "text": "a", "speaker": "\ud800"}]',
            "half of a surrogate pair",
        ),
        ("[ 5 ]", "cue 1: must be an object"),
        ('{"a": 1}', "must be the text of an SRT"),
        ("00:01,000 --> 00:02,000\n\ud800", "half of a surrogate pair"),
    ],
)
def test_what_cannot_be_read_is_told_by_its_number_and_line(source: str | bytes, reason: str) -> None:
    with pytest.raises(RequestError) as refused:
        read_cues(source)
    assert refused.value.field == "cues"
    assert reason in refused.value.reason


@pytest.mark.parametrize("caption_format", ["srt", "vtt", "json"])
def test_captions_are_read_back_as_they_were_written(caption_format: str) -> None:
    cues = (Cue(0.0, 1.5, "Hello & <you>."), Cue(59.9996, 3661.001, "さようなら。"))
    read = read_cues(write_captions(cues, caption_format)).cues
    assert [cue.text for cue in read] == [cue.text for cue in cues]
    assert [(cue.start_seconds, cue.end_seconds) for cue in read] == [(0.0, 1.5), (60.0, 3661.001)]


@pytest.mark.parametrize("caption_format", ["vtt", "json"])
def test_captions_keep_the_speaker_where_the_format_has_one(caption_format: str) -> None:
    cues = (Cue(0.0, 1.5, "Hello.", "Ann & Bob"),)
    assert read_cues(write_captions(cues, caption_format)).cues == cues


@pytest.mark.parametrize("caption_format", ["srt", "vtt"])
def test_captions_are_one_line_each_whatever_was_said(caption_format: str) -> None:
    written = write_captions([Cue(0, 1, "One.\n\nTwo and three."), Cue(1, 2, "そう。\n\n次。")], caption_format)
    assert texts(written) == ["One. Two and three.", "そう。次。"]


def test_seconds_are_free_of_what_arithmetic_leaves() -> None:
    assert Cue(3.1, 4.6, "").seconds == Cue(10.6, 12.1, "").seconds == 1.5


def test_no_captions_are_a_file_too() -> None:
    assert write_captions([], "srt") == ""
    assert write_captions([], "vtt") == "WEBVTT\n"
    assert write_captions([], "json") == "[]"


def test_another_caption_format_is_refused_by_name() -> None:
    with pytest.raises(RequestError, match="captions: 'ass' is not one of srt, vtt, json"):
        write_captions([], "ass")
