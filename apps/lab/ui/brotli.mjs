// Used by the build alone: replaces each file of the list on standard input by
// FILE.br, several at a time.
import { readFile, rm, writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { brotliCompress, constants } from "node:zlib";

const pack = promisify(brotliCompress);
let text = "";
for await (const piece of process.stdin) text += piece;
const names = JSON.parse(text);
await Promise.all(Array.from({ length: 4 }, async () => {
  for (let name = names.pop(); name; name = names.pop()) {
    const content = await readFile(name);
    const params = { [constants.BROTLI_PARAM_QUALITY]: 11, [constants.BROTLI_PARAM_SIZE_HINT]: content.length };
    await writeFile(name + ".br", await pack(content, { params }));
    await rm(name);
  }
}));
