/**
 * Refuses to run on a Node.js that is too old, before anything else is loaded: npm only warns, and a later error would
 * name some module. The floor stands in package.json alone.
 */
import { readFileSync } from 'node:fs';

// The file is two levels up from src/cli and from dist/cli alike.
const packageFile = new URL('../../package.json', import.meta.url);

/** @returns what is wrong; undefined when this Node.js is new enough */
export function refuseNode(version = process.versions.node): string | undefined {
  const floor = Number(/"node":\s*">=(\d+)"/.exec(readFileSync(packageFile, 'utf8'))?.[1]);
  if (Number(version.split('.')[0]) >= floor) return undefined;
  return (
    `Node.js ${version} (${process.execPath}) is too old, expected ${floor} or later: ` +
    `install that (https://nodejs.org) where this program finds it as "node"`
  );
}
