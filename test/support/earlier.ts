/** A built tree of an earlier commit, which `npm run test:long -- upgrade` makes (earlier.sh). */
import { existsSync } from 'node:fs';
import { join } from 'node:path';

export const earlierTree = process.env['TARTAN_EARLIER'] ?? '';
export const earlierProgram = join(earlierTree, 'dist/tartand.js');

if (!existsSync(earlierProgram))
  throw new Error('TARTAN_EARLIER names no built tree of an earlier commit: run npm run test:long -- upgrade');
