// Makes the files of dist/, which the relay's binary holds. `--check` compares instead of writing.

import { mkdir, readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { build } from "esbuild";

const here = fileURLToPath(new URL(".", import.meta.url));
const PARTS = "Parts: preact, @preact/signals, uPlot, nostr-tools, @noble/*, @scure/base; all under the MIT licence.";

const { outputFiles } = await build({
  absWorkingDir: here,
  entryPoints: { console: "src/main.tsx" },
  outdir: "dist",
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  charset: "utf8",
  legalComments: "none",
  banner: { js: `/* The source is in console/. ${PARTS} */` },
  write: false,
});
const files = outputFiles.map(({ path, contents }) => [path.slice(path.lastIndexOf("/") + 1), Buffer.from(contents)]);
files.push(["index.html", await readFile(`${here}src/index.html`)]);

const isCheck = process.argv.includes("--check");
if (!isCheck) await mkdir(`${here}dist`, { recursive: true });
let differing = 0;
let compressed = 0;
for (const [name, contents] of files.sort()) {
  const place = `${here}dist/${name}`;
  const size = gzipSync(contents, { level: 9 }).length;
  compressed += size;
  console.log(`${name}: ${contents.length} bytes, ${size} by gzip`);
  if (!isCheck) {
    await writeFile(place, contents);
  } else if (!(await readFile(place).catch(() => Buffer.alloc(0))).equals(contents)) {
    differing += 1;
    console.error(`dist/${name} is not what the sources give: run \`npm run build\` in console/ and commit it`);
  }
}
console.log(`in all ${compressed} bytes by gzip`);
process.exitCode = differing > 0 ? 1 : 0;
