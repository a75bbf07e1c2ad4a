import assert from "node:assert/strict";
import { test } from "node:test";
import { parseStoryboard, pictureAt } from "./storyboard.ts";

const BASE = "https://edge.example:8443/token/titles/ab/storyboard.vtt";

test("cues become pictures in time order, relative to the file", () => {
  const pictures = parseStoryboard(
    `WEBVTT

2
00:05.000 --> 01:00:10.500 align:start
storyboard.jpg#xywh=160,0,160,90

1
00:00:00.000 --> 00:00:05.000
other/sprite.jpg#xywh=pixel:0,0,160,90
`.replaceAll("\n", "\r\n"),
    BASE,
  );
  assert.deepEqual(pictures, [
    { startS: 0, endS: 5, url: "https://edge.example:8443/token/titles/ab/other/sprite.jpg", x: 0, y: 0, width: 160, height: 90 },
    { startS: 5, endS: 3610.5, url: "https://edge.example:8443/token/titles/ab/storyboard.jpg", x: 160, y: 0, width: 160, height: 90 },
  ]);
  assert.equal(pictureAt(pictures, 4.9).startS, 0);
  assert.equal(pictureAt(pictures, 5).startS, 5);
  assert.equal(pictureAt(pictures, 9999).startS, 5);
  assert.equal(pictureAt([], 1), undefined);
});

test("cues that place nothing are skipped", () => {
  const cue = (text) => `WEBVTT\n\n00:00.000 --> 00:01.000\n${text}`;
  for (const text of ["words", "a.jpg", "a.jpg#xywh=1,2,3", "a.jpg#xywh=percent:1,2,3,4", "a.jpg#xywh=0,0,0,90", "http://[#xywh=0,0,1,1", ""]) {
    assert.deepEqual(parseStoryboard(cue(text), BASE), [], text);
  }
  assert.deepEqual(parseStoryboard("<html>no edge here</html>", BASE), []);
});
