// Builds the player into dist/: index.html and, under assets/, one script and one style sheet named by their content,
// so that control may let browsers keep them for ever. `--tests` bundles src/*.test.js for node's test runner instead.

import { copyFile, readFile, readdir, rm, writeFile } from "node:fs/promises";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

process.chdir(fileURLToPath(new URL(".", import.meta.url)));

if (process.argv.includes("--tests")) {
  await bundleTests("node_modules/.tests");
} else {
  await bundlePlayer("dist");
}

async function bundlePlayer(folder) {
  await rm(folder, { recursive: true, force: true });
  const { metafile } = await build({
    entryPoints: [
      { in: "src/main.ts", out: "player" },
      { in: "src/style.css", out: "player" },
    ],
    outdir: `${folder}/assets`,
    entryNames: "[name]-[hash]",
    bundle: true,
    minify: true,
    format: "esm",
    target: ["chrome109", "firefox115", "safari16"],
    metafile: true,
  });
  let page = await readFile("index.html", "utf8");
  for (const [path, output] of Object.entries(metafile.outputs)) {
    const name = basename(path);
    page = page.replace(`/assets/player${name.slice(name.lastIndexOf("."))}`, `/assets/${name}`);
    console.log(`${path}  ${Math.ceil(output.bytes / 1024)} KiB`);
  }
  await writeFile(`${folder}/index.html`, page);
  await copyFile("node_modules/hls.js/LICENSE", `${folder}/assets/hls.js.LICENSE.txt`);
}

async function bundleTests(folder) {
  await rm(folder, { recursive: true, force: true });
  const tests = (await readdir("src")).filter((name) => name.endsWith(".test.js"));
  await build({
    entryPoints: tests.map((name) => `src/${name}`),
    outdir: folder,
    outExtension: { ".js": ".mjs" },
    bundle: true,
    format: "esm",
    platform: "node",
  });
}
