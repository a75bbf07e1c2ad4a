import assert from "node:assert/strict";
import { test } from "node:test";
import { parseCacheStatus, verdictOf } from "./cacheStatus.ts";

const names = (field) => parseCacheStatus(field)?.map((entry) => entry.cache) ?? null;

test("the verdict is the nearest cache's, which is the last", () => {
  assert.deepEqual(verdictOf("edge-a; hit; detail=ram"), { cache: "edge-a", outcome: "hit", stored: false, detail: "ram" });
  assert.deepEqual(verdictOf("shield; hit, edge-a; fwd=miss; stored; detail=origin"), {
    cache: "edge-a",
    outcome: "miss",
    stored: true,
    detail: "origin",
  });
  assert.equal(verdictOf("edge-a; fwd=miss; collapsed").outcome, "collapsed");
  assert.equal(verdictOf("edge-a; fwd=miss; collapsed=?0").outcome, "miss");
  assert.equal(verdictOf("edge-a; fwd=stale; fwd-status=304").outcome, "stale");
});

test("no verdict without a header or without a word on what happened", () => {
  for (const field of [null, "", "edge-a", "edge-a; ttl=5", "edge-a; hit; ="]) assert.equal(verdictOf(field), null, field);
});

test("parameters keep their types", () => {
  const [entry] = parseCacheStatus('"edge \\"a\\""; hit; ttl=-5; ratio=0.25; key="a\\\\b, c; d"; detail=disk/1; x=:aGk=:; y=?0');
  assert.equal(entry.cache, 'edge "a"');
  assert.deepEqual(Object.fromEntries(entry.parameters), {
    hit: true,
    ttl: -5,
    ratio: 0.25,
    key: "a\\b, c; d",
    detail: "disk/1",
    x: "aGk=",
    y: false,
  });
});

test("lists allow tabs and spaces around commas only", () => {
  assert.deepEqual(names("a;hit\t,  b;  fwd=miss"), ["a", "b"]);
  assert.deepEqual(names("  a; hit  "), ["a"]);
});

test("a field that breaks the grammar is ignored whole", () => {
  for (const field of ["a,", ",a", "a b", "a; Hit", 'a; key="open', "a; ttl=1.2345", "a; ttl=1.", "(a b); hit", "a ;hit", "ä"]) {
    assert.equal(names(field), null, field);
  }
});
