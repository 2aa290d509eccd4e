/**
 * Finds settings that stand twice and so keep dockerd from starting (the same key as a flag and in daemon.json,
 * `bridge` beside `bip`), for tartand and for `tartan docker verify`. Settings of others are never changed. Pure.
 */
import { combineFlags, flagName, optionText, type DockerdKey, type DockerdOptions } from './dockerd-options.js';
import type { PlacedFlag } from './dockerd-places.js';
import { nftablesOptions, type EngineOption } from './settings.js';

export interface Conflict {
  readonly key: DockerdKey;
  readonly found: string;
  readonly repair: string;
}

export function formatConflict({ found, repair }: Conflict): string {
  return `${found}: ${repair}`;
}

/** Leaves out the options of the nftables backend that daemon.json has already. */
export function flagsFor(wanted: readonly EngineOption[], file: DockerdOptions): readonly EngineOption[] {
  return wanted.filter(option => !isOfNftables(option) || !file.has(option.key));
}

export interface SettingsPlace {
  readonly place: string;
  readonly options: DockerdOptions;
}

/** Returns what the files of others, and the flags in them, set at Docker's next start. */
export function placesOfOthers(
  path: string,
  file: DockerdOptions,
  flags: readonly PlacedFlag[],
): readonly SettingsPlace[] {
  const lasting = flags.filter(({ running }) => !running);
  const names = [...new Set(lasting.map(({ place }) => place))];
  return [
    { place: path, options: file },
    ...names.map(place => ({
      place,
      options: combineFlags(lasting.filter(one => one.place === place).map(({ flag }) => flag)),
    })),
  ];
}

/**
 * Leaves out the options of pools that somebody else has set, because dockerd takes a flag and a member of one name for
 * an error. Docker starts without them; what is lacking then is named.
 */
export function yieldPools(
  wanted: readonly EngineOption[],
  places: readonly SettingsPlace[],
): { readonly options: readonly EngineOption[]; readonly conflicts: readonly Conflict[] } {
  const rival = ({ key }: EngineOption): SettingsPlace | undefined => places.find(({ options }) => options.has(key));
  return {
    options: wanted.filter(option => !rival(option)),
    conflicts: wanted.flatMap((option): readonly Conflict[] => {
      const { key } = option;
      const [other, text] = [rival(option), optionText(key, option.value)];
      const given = other?.options.get(key)?.split(' ') ?? [];
      if (!other || text.split(' ').every(one => given.includes(one))) return [];
      return key === 'default-network-opts'
        ? [
            {
              key,
              found: `${other.place} has '${key}' without the tunnel's MTU`,
              repair: `add ${text} to it, or take it out of ${other.place}`,
            },
          ]
        : [
            {
              key,
              found: `${other.place} has '${key}', so that Docker's own networks are no parts of the lease`,
              repair: `take it out of ${other.place}, or start tartand without --docker-pools`,
            },
          ];
    }),
  };
}

/**
 * Says why dockerd does not start with our flags beside this daemon.json, or drops the overlay's packets.
 * @param path of the file
 */
export function conflictsWithFlags(
  wanted: readonly EngineOption[],
  file: DockerdOptions,
  path: string,
): readonly Conflict[] {
  return [
    ...wanted.flatMap((option): readonly Conflict[] => {
      const { key, value } = option;
      if (!file.has(key) || (isOfNftables(option) && file.get(key) === optionText(key, value))) return [];
      return isOfNftables(option)
        ? [{ key, found: `${path} has another ${key} than the overlay needs`, repair: `make it ${String(value)}` }]
        : [
            {
              key,
              found: `${path} has '${key}', beside tartan's --${flagName(key)} dockerd does not start`,
              repair: `take '${key}' out of the file, or start tartand with --docker-config=daemon-json`,
            },
          ];
    }),
    ...bridgeInFile(file, path, "tartan's --bip"),
  ];
}

/**
 * Says why dockerd does not start once our settings stand in daemon.json.
 * @param own flags of ours, which dockerd no longer has after its next start
 */
export function conflictsWithFile(
  wanted: readonly EngineOption[],
  file: DockerdOptions,
  path: string,
  { flags, own }: { readonly flags: readonly PlacedFlag[]; readonly own: readonly string[] },
): readonly Conflict[] {
  const ours = [...wanted.map(({ key, value }) => `${key}=${optionText(key, value)}`), ...own];
  const rivals = flags.filter(
    ({ flag: [key, value], running }) =>
      (key === 'bridge' || wanted.some(option => option.key === key)) && !(running && ours.includes(`${key}=${value}`)),
  );
  return [
    ...rivals.map(({ flag: [key], place, running }) => ({
      key,
      found: `--${flagName(key)} stands in the flags of ${place}, beside '${key === 'bridge' ? 'bip' : key}' in ${path} dockerd does not start`,
      repair: `${running ? 'start dockerd without it' : `take it out of ${place}`}, or start tartand with --docker-config=env`,
    })),
    ...bridgeInFile(file, path, "'bip'"),
  ];
}

function bridgeInFile(file: DockerdOptions, path: string, beside: string): readonly Conflict[] {
  if (!file.has('bridge')) return [];
  const found = `${path} has 'bridge', beside ${beside} dockerd does not start`;
  return [{ key: 'bridge', found, repair: "take 'bridge' out of the file" }];
}

function isOfNftables(option: EngineOption): boolean {
  return nftablesOptions.includes(option);
}
