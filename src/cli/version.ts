/** Reads the version from the package that this program is part of, the only place where it stands. */
import { readFileSync } from 'node:fs';
import { jsonMembers } from '../model/json.js';

// The file is two levels up from src/cli and from dist/cli alike.
const packageFile = new URL('../../package.json', import.meta.url);

export const version = readVersion(readFileSync(packageFile, 'utf8'));

function readVersion(text: string): string {
  const found = jsonMembers(JSON.parse(text))?.get('version');
  return typeof found === 'string' ? found : 'unknown';
}
