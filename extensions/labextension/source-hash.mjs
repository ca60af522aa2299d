// Prints a hash of what the built extension is made from; a test compares it with the hash kept beside the build.
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';

const files = ['package.json', 'tsconfig.json', 'yarn.lock', ...['src', 'style'].flatMap(d => readdirSync(d).map(f => `${d}/${f}`))];
const hash = createHash('sha256');
for (const file of files.sort()) {
  hash.update(`${file}\0`).update(readFileSync(file));
}
console.log(hash.digest('hex'));
