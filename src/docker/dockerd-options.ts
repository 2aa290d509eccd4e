/**
 * dockerd's settings as far as the overlay depends on them: flags of a command line, members of daemon.json. A key that
 * stands in both keeps dockerd from starting, even with equal values.
 */
export const watchedKeys = [
  'bip',
  'mtu',
  'ip-masq',
  'bridge',
  'icc',
  'iptables',
  'live-restore',
  'firewall-backend',
  'bridge-accept-fwmark',
  'allow-direct-routing',
  'config-file',
] as const;

export type DockerdKey = (typeof watchedKeys)[number];
export type DockerdOptions = ReadonlyMap<DockerdKey, string>;

const booleans: readonly DockerdKey[] = ['ip-masq', 'icc', 'iptables', 'live-restore', 'allow-direct-routing'];

/** pflag: `--name=value`, `--name value`, a boolean alone is true, `-b` is --bridge. */
export function parseDockerdFlags(words: readonly string[]): DockerdOptions {
  const found = new Map<DockerdKey, string>();
  for (let at = 0; at < words.length; at++) {
    const [, name = '', value] = /^--?([a-z0-9-]+)(?:=(.*))?$/s.exec(words[at] ?? '') ?? [];
    const key = watchedKeys.find(one => one === (name === 'b' ? 'bridge' : name));
    if (key === undefined) continue;
    if (value !== undefined) found.set(key, value);
    else found.set(key, booleans.includes(key) ? 'true' : (words[++at] ?? ''));
  }
  return found;
}

/** @returns undefined when the text is not a JSON object: dockerd refuses it too */
export function parseDaemonJson(text: string): DockerdOptions | undefined {
  let value: unknown;
  try {
    // dockerd takes an empty file for an empty object.
    value = text.trim() === '' ? {} : JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return undefined;
  const members = new Map<string, unknown>(Object.entries(value));
  const given = watchedKeys.filter(key => members.has(key) && key !== 'config-file');
  return new Map(given.map(key => [key, String(members.get(key))]));
}
