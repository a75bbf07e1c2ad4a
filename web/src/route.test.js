import assert from "node:assert/strict";
import { test } from "node:test";
import { ASK_AGAIN_MS, Route } from "./route.ts";

const edge = (name, token = "t1") => ({ edge: name, hls: `https://${name}.example/${token}/titles/ab/master.m3u8` });
const DOWN = { status: 0, reason: "no answer" };

function setUp(answers, edges = [edge("a"), edge("b")]) {
  const clock = { nowMs: 0, asked: 0 };
  const ask = async () => {
    clock.asked += 1;
    const answer = answers.shift();
    if (!answer) throw new Error("control does not answer");
    return answer;
  };
  return { clock, route: new Route(edges, ask, () => clock.nowMs) };
}

test("URLs of the first edge are asked of the current one, foreign URLs are left alone", () => {
  const { route } = setUp([]);
  const [, b] = [edge("a"), edge("b", "t2")];
  assert.equal(route.on(b, "https://a.example/t1/titles/ab/v720/1.m4s"), "https://b.example/t2/titles/ab/v720/1.m4s");
  assert.equal(route.on(b, "https://ads.example/1.m4s"), "https://ads.example/1.m4s");
});

test("each edge is tried before control is asked, and a late failure of an edge already left changes nothing", async () => {
  const { route, clock } = setUp([[edge("c")]]);
  const a = route.current;
  assert.equal(await route.leave(a, DOWN), true);
  assert.equal(await route.leave(a, DOWN), true);
  assert.equal(route.current.edge, "b");
  assert.equal(clock.asked, 0);
  assert.equal(await route.leave(route.current, DOWN), true);
  assert.deepEqual([route.current.edge, clock.asked, route.moves], ["c", 1, 2]);
});

test("loads that fail together ask control once", async () => {
  const { route, clock } = setUp([[edge("a", "t2")]], [edge("a")]);
  const a = route.current;
  assert.deepEqual(await Promise.all([route.leave(a, DOWN), route.leave(a, DOWN)]), [true, true]);
  assert.deepEqual([clock.asked, route.current.hls.includes("/t2/"), route.moves], [1, true, 0]);
});

test("a refused token asks control although other edges are left", async () => {
  const { route, clock } = setUp([[edge("a", "t2"), edge("b", "t2")]]);
  assert.equal(await route.leave(route.current, { status: 403, reason: "expired" }), true);
  assert.deepEqual([clock.asked, route.current.hls], [1, edge("a", "t2").hls]);
});

test("nowhere to go is said at once, and all edges are tried again later", async () => {
  const { route, clock } = setUp([[edge("a")]], [edge("a")]);
  assert.equal(await route.leave(route.current, DOWN), true);
  assert.equal(await route.leave(route.current, DOWN), false, "asked a moment ago");
  clock.nowMs += ASK_AGAIN_MS;
  assert.equal(await route.leave(route.current, DOWN), false, "control is silent");
  assert.deepEqual([clock.asked, route.current.edge], [2, "a"]);
});
