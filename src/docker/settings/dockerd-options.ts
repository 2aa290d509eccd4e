/**
 * Parses those settings of dockerd that the overlay depends on: flags of a command line, members of daemon.json. A key
 * that stands in both keeps dockerd from starting, even with equal values.
 */
import { readMembers } from './daemon-json.js';

const watchedKeys = [
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
/** Of several flags with one key the last counts. */
export type DockerdOptions = ReadonlyMap<DockerdKey, string>;
export type DockerdFlag = readonly [key: DockerdKey, value: string];

const booleans: readonly DockerdKey[] = ['ip-masq', 'icc', 'iptables', 'live-restore', 'allow-direct-routing'];

/** Parses as pflag does: `--name=value`, `--name value`, a boolean alone is true, `-b` is --bridge. */
export function parseDockerdFlags(words: readonly string[]): readonly DockerdFlag[] {
  const found: DockerdFlag[] = [];
  for (let at = 0; at < words.length; at++) {
    const [, name = 'bridge', value] = /^(?:--([a-z0-9-]+)|-b)(?:=(.*))?$/s.exec(words[at] ?? '') ?? [undefined, ''];
    const key = watchedKeys.find(one => one === name);
    if (key === undefined) continue;
    found.push([key, value ?? (booleans.includes(key) ? 'true' : (words[++at] ?? ''))]);
  }
  return found;
}

/**
 * @param text undefined: there is no such file
 * @throws TartanError CONFIG_INVALID for text that is no JSON object: dockerd refuses it too
 */
export function readDaemonOptions(text: string | undefined, path: string): DockerdOptions {
  const members = readMembers(text ?? '', path);
  const given = watchedKeys.filter(key => members.has(key) && key !== 'config-file');
  return new Map(given.map(key => [key, String(members.get(key))]));
}
