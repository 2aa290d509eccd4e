/**
 * What stands twice keeps dockerd from starting (the same key as a flag and in daemon.json, `bridge` beside `bip`): found
 * here before it can hurt. Nothing of somebody else's is changed; each line names key, file and the next step.
 */
import { readFileSync, statSync } from 'node:fs';
import { isTartanError, messageOf, TartanError } from '../lib/errors.js';
import { conflictingKeys, readKey } from './daemon-json.js';
import { findDockerdFlags, type DockerdFlag } from './dockerd-flags.js';
import { formatWord, nftablesOptions, type EngineOption } from './settings.js';

const maxBytes = 1024 * 1024;

/** As dockerd reads it, through links. @returns undefined when there is none, or it cannot be read */
export function readDaemonJson(path: string): string | undefined {
  try {
    const stat = statSync(path);
    return stat.isFile() && stat.size <= maxBytes ? readFileSync(path, 'utf8') : undefined;
  } catch {
    return undefined;
  }
}

export function saysNftables(text: string | undefined, flags: readonly DockerdFlag[]): boolean {
  return flags.some(({ value }) => value === 'nftables') || member(text, 'firewall-backend') === 'nftables';
}

/** Without those of the nftables backend that daemon.json has already. */
export function flagsFor(wanted: readonly EngineOption[], text: string | undefined): readonly EngineOption[] {
  return wanted.filter(option => !isOfNftables(option) || member(text, option.key) === undefined);
}

/** Why dockerd will not start with our flags beside this daemon.json, or not accept the overlay's packets. */
export function conflictsWithFlags(
  wanted: readonly EngineOption[],
  text: string | undefined,
  path: string,
): readonly string[] {
  if (text === undefined) return [];
  try {
    const different = wanted.filter(option => {
      const found = member(text, option.key);
      return isOfNftables(option) && found !== undefined && found !== option.value;
    });
    return [
      ...conflictingKeys(text, path).map(key => lineFor(key, path)),
      ...different.map(
        ({ key, value }) => `${path} has another ${key} than the overlay needs: make it ${String(value)}`,
      ),
    ];
  } catch (error) {
    if (!isTartanError(error, 'CONFIG_INVALID')) throw error;
    return [messageOf(error)];
  }
}

/** @param key as `conflictingKeys` returns it */
function lineFor(key: string, path: string): string {
  const beside = key === 'bridge' ? "tartan's --bip" : `tartan's --${key}`;
  const other = key === 'bridge' ? '' : ', or start tartand with --docker-config=daemon-json';
  return `${path} has '${key}', beside ${beside} dockerd does not start: take '${key}' out of the file${other}`;
}

export interface MergePlace {
  readonly dockerEnvFile: string;
  readonly docker: { readonly daemonJsonFile: string };
  /**
   * Text of our docker.env, from which a running dockerd may have flags until its next start; undefined once merged:
   * what runs with flags by then has started before, and has them from there.
   */
  readonly dockerEnv: string | undefined;
  /** Where the files of Docker's packages and units are. */
  readonly root: string;
}

/**
 * @throws TartanError CONFIG_INVALID when a key stands elsewhere too
 */
export function refuseFlags(wanted: readonly EngineOption[], place: MergePlace): void {
  const { dockerEnvFile, docker, dockerEnv, root } = place;
  const path = docker.daemonJsonFile;
  const keys = [...wanted.map(({ key }) => key), 'bridge'];
  const ours = wanted.map(formatWord);
  const rival = findDockerdFlags(keys, dockerEnvFile, root).find(({ key, value, running }) => {
    if (!running) return true;
    const word = value === '' ? `--${key}` : `--${key}=${value}`;
    return dockerEnv !== undefined && !ours.includes(word) && !dockerEnv.split(/[ "]/).includes(word);
  });
  if (rival) throw new TartanError('CONFIG_INVALID', rivalLine(rival, path));
  if (member(readDaemonJson(path), 'bridge') !== undefined)
    throw new TartanError(
      'CONFIG_INVALID',
      `${path} has 'bridge', beside 'bip' dockerd does not start: take 'bridge' out of the file; it is left as it was`,
    );
}

function rivalLine({ key, place, running }: DockerdFlag, path: string): string {
  const beside = key === 'bridge' ? `'bip' in ${path}` : `'${key}' in ${path}`;
  const next = running ? 'start dockerd without it' : `take it out of ${place}`;
  return (
    `--${key} stands in the flags of ${place}, beside ${beside} dockerd does not start: ${next}, ` +
    `or start tartand with --docker-config=env; ${path} is left as it was`
  );
}

function isOfNftables(option: EngineOption): boolean {
  return nftablesOptions.includes(option);
}

/** undefined as well for what is no JSON, which others report. */
function member(text: string | undefined, key: string): unknown {
  try {
    return text === undefined ? undefined : readKey(text, key, '');
  } catch {
    return undefined;
  }
}
