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
  'default-address-pools',
  'default-network-opts',
  'config-file',
] as const;

export type DockerdKey = (typeof watchedKeys)[number];
/** What dockerd has for each key; several pools, or options of networks, stand beside each other with a blank between. */
export type DockerdOptions = ReadonlyMap<DockerdKey, string>;
export type DockerdFlag = readonly [key: DockerdKey, value: string];

/** Lists. */
const repeated: readonly DockerdKey[] = ['default-address-pools', 'default-network-opts'];
const booleans: readonly DockerdKey[] = ['ip-masq', 'icc', 'iptables', 'live-restore', 'allow-direct-routing'];

/** Parses as pflag does: `--name=value`, `--name value`, a boolean alone is true, `-b` is --bridge. */
export function parseDockerdFlags(words: readonly string[]): readonly DockerdFlag[] {
  const found: DockerdFlag[] = [];
  for (let at = 0; at < words.length; at++) {
    const [, name = 'bridge', value] = /^(?:--([a-z0-9-]+)|-b)(?:=(.*))?$/s.exec(words[at] ?? '') ?? [undefined, ''];
    const key = watchedKeys.find(one => flagName(one) === name);
    if (key === undefined) continue;
    found.push([key, value ?? (booleans.includes(key) ? 'true' : (words[++at] ?? ''))]);
  }
  return found;
}

/** @param text of optionText */
export function flagWords(key: DockerdKey, text: string): readonly string[] {
  return repeated.includes(key) ? text.split(' ').map(one => `--${flagName(key)}=${one}`) : [`--${key}=${text}`];
}

/** The flag of a list is in the singular. */
export function flagName(key: DockerdKey): string {
  return repeated.includes(key) ? key.slice(0, -1) : key;
}

/** Of several flags with one key the last counts, unless they are a list. */
export function combineFlags(flags: readonly DockerdFlag[]): DockerdOptions {
  const options = new Map<DockerdKey, string>();
  for (const [key, value] of flags) {
    const before = options.get(key);
    options.set(key, before !== undefined && repeated.includes(key) ? `${before} ${value}` : value);
  }
  return options;
}

/**
 * @param text undefined: there is no such file
 * @throws TartanError CONFIG_INVALID for text that is no JSON object: dockerd refuses it too
 */
export function readDaemonOptions(text: string | undefined, path: string): DockerdOptions {
  const members = readMembers(text ?? '', path);
  const given = watchedKeys.filter(key => members.has(key) && key !== 'config-file');
  return new Map(given.map(key => [key, optionText(key, members.get(key))]));
}

/** Writes a value of daemon.json as the flag has it, several of a list with a blank between; what no flag has, as JSON. */
export function optionText(key: DockerdKey, value: unknown): string {
  if (key === 'default-address-pools' && Array.isArray(value) && value.every(isObject))
    return value.map(({ base, size }) => `base=${String(base)},size=${String(size)}`).join(' ');
  if (key === 'default-network-opts' && isObject(value))
    return Object.entries(value)
      .flatMap(([driver, options]) =>
        Object.entries(isObject(options) ? options : {}).map(([name, text]) => `${driver}=${name}=${String(text)}`),
      )
      .join(' ');
  return isObject(value) || Array.isArray(value) ? JSON.stringify(value) : String(value);
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}
