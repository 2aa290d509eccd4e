/**
 * Writes the files for Docker, mode 0644: `subnet.env` for flannel's readers, `docker.env` for Docker's unit, and only
 * when asked for Docker's own daemon.json. The settings stand in one of the last two, never in both.
 */
import { statSync } from 'node:fs';
import { isTartanError, messageOf, TartanError } from '../../lib/errors.js';
import { readBounded, writeFileAtomic, readTextFile } from '../../lib/file.js';
import {
  conflictsWithFile,
  conflictsWithFlags,
  flagsFor,
  formatConflict,
  placesOfOthers,
  yieldPools,
  type SettingsPlace,
} from './conflicts.js';
import type { DockerFiles, DockerSettings, DockerWriteResult } from '../docker.js';
import { readDaemonOptions, type DockerdOptions } from './dockerd-options.js';
import { findDockerdFlags, flagsIn } from './dockerd-places.js';
import { DockerdVersion } from './dockerd-version.js';
import { readVariables, withVariables } from './env-file.js';
import { factValue } from '../../lib/fact.js';
import { mergeDaemonJson, readMergeRecord, textOfOthers, unmergeDaemonJson } from './merge.js';
import { checkParts, type LeaseParts, type PartOptions } from '../../model/lease-parts.js';
import {
  dockerVariables,
  engineOptions,
  firstWithPools,
  formatDockerEnv,
  formatSubnetEnv,
  nftablesOptions,
  parseSubnetEnv,
  poolOptions,
  subnetVariables,
  type EngineOption,
} from './settings.js';

const maxVariablesBytes = 64 * 1024;

export interface DockerFileOptions {
  readonly subnetFile: string;
  readonly dockerEnvFile: string;
  readonly stateDir: string;
  readonly docker: PartOptions & {
    /** Which file gets the settings. */
    readonly config: 'env' | 'daemon-json';
    readonly daemonJsonFile: string;
    readonly firewall: DockerFirewall;
  };
}

/** Paths that tests replace. */
export interface HostPaths {
  /** The folder below which the files of Docker's packages and units are. */
  readonly root: string;
  readonly dockerd: string;
}

export function openDockerFiles(
  options: DockerFileOptions,
  { root, dockerd }: HostPaths = { root: '/', dockerd: 'dockerd' },
): DockerFiles {
  const { subnetFile, dockerEnvFile, docker } = options;
  const version = new DockerdVersion(dockerd);
  const backend = new FirewallBackend(docker.firewall, version);
  const stamps = (): string => [subnetFile, dockerEnvFile, docker.daemonJsonFile].map(stampOf).join(' ');
  let written: string | undefined;
  const usesNftables = (): boolean =>
    readFile(docker.daemonJsonFile).options.get('firewall-backend') === 'nftables' ||
    findDockerdFlags(dockerEnvFile, root).some(
      ({ flag: [key, value] }) => key === 'firewall-backend' && value === 'nftables',
    );
  return {
    previousSubnet() {
      const text = readBounded(subnetFile, maxVariablesBytes);
      return text === undefined ? undefined : parseSubnetEnv(text);
    },
    isChangedByOthers: () => written !== undefined && written !== stamps(),
    async write(settings) {
      const { wanted, problem } = await backend.wantsOptions(usesNftables);
      const parts = checkParts(settings.subnet, docker);
      const basic = [...engineOptions(parts, settings.mtu), ...(wanted ? nftablesOptions : [])];
      const major = parts.pools.length > 0 ? await version.major() : undefined;
      const pools = yieldPools(poolOptions(parts.pools, settings.mtu, major ?? 0), othersOf(options, root));
      const all = [...basic, ...pools.options];
      // A write that fails is tried again by its caller.
      written = undefined;
      const subnetFiles = writeSubnetFile(subnetFile, settings);
      const report = docker.config === 'env' ? writeFlags(options, all) : writeMerged(options, all, root);
      written = stamps();
      return {
        written: [...subnetFiles, ...report.written],
        conflicts: [
          ...report.conflicts,
          ...(problem === undefined ? [] : [problem]),
          ...withoutPools(parts, major),
          ...pools.conflicts.map(formatConflict),
        ],
        needsForwarding: wanted,
      };
    },
  };
}

/** Tells one version of a file from the next without reading it. */
function stampOf(path: string): string {
  try {
    const { ino, mtimeNs, size } = statSync(path, { bigint: true });
    return `${ino}:${mtimeNs}:${size}`;
  } catch {
    return 'none';
  }
}

/** Says why Docker gets no pools, where the engine is the reason. */
function withoutPools({ pools }: LeaseParts, major: number | undefined): readonly string[] {
  if (pools.length === 0 || (major !== undefined && major >= firstWithPools)) return [];
  const found = major === undefined ? 'the version of dockerd cannot be told' : `dockerd is version ${major}`;
  return [
    `--docker-pools needs Docker ${firstWithPools}, and ${found}: Docker's own networks reach no other host; ` +
      `install Docker ${firstWithPools}, or make networks by: tartan docker network create`,
  ];
}

/** Finds what the administrator has set for dockerd in daemon.json and in the files with its flags. */
function othersOf({ dockerEnvFile, stateDir, docker }: DockerFileOptions, root: string): readonly SettingsPlace[] {
  if (!docker.pools) return [];
  const path = docker.daemonJsonFile;
  const isMerged = readMergeRecord(stateDir)?.file === path;
  const file = isMerged
    ? readDaemonOptions(textOfOthers({ daemonJsonFile: path, stateDir }), path)
    : readFile(path).options;
  return placesOfOthers(path, file, findDockerdFlags(dockerEnvFile, root));
}

type FileReport = Omit<DockerWriteResult, 'needsForwarding'>;

function writeFlags(
  { dockerEnvFile, stateDir, docker }: DockerFileOptions,
  wanted: readonly EngineOption[],
): FileReport {
  const unmerged = unmergeDaemonJson(stateDir);
  const path = docker.daemonJsonFile;
  const { options, problem } = readFile(path);
  const written = writeVariables(dockerEnvFile, formatDockerEnv(flagsFor(wanted, options)), dockerVariables);
  return {
    written: [...(unmerged?.changed ? [unmerged.file] : []), ...written],
    conflicts: problem === undefined ? conflictsWithFlags(wanted, options, path).map(formatConflict) : [problem],
  };
}

function writeMerged(options: DockerFileOptions, wanted: readonly EngineOption[], root: string): FileReport {
  const { dockerEnvFile, docker } = options;
  const path = docker.daemonJsonFile;
  // A running dockerd may have its flags from our docker.env, or flags from the time before the merge.
  const isMerged = readMergeRecord(options.stateDir)?.file === path;
  const variables = readVariables(readBounded(dockerEnvFile, maxVariablesBytes) ?? '');
  const own = dockerVariables.flatMap(name => flagsIn(variables.get(name) ?? '').map(flag => flag.join('=')));
  const flags = findDockerdFlags(dockerEnvFile, root).filter(({ running }) => !(running && isMerged));
  const [conflict] = conflictsWithFile(wanted, readFile(path).options, path, { flags, own });
  if (conflict) throw new TartanError('CONFIG_INVALID', `${formatConflict(conflict)}; ${path} is left as it was`);
  const merged = mergeDaemonJson({ ...options, ...docker }, wanted);
  // The variables are empty, so that units that insist on the file start Docker.
  const written = writeVariables(dockerEnvFile, formatDockerEnv([]), dockerVariables);
  return { written: [...(merged ? [docker.daemonJsonFile] : []), ...written], conflicts: [] };
}

/** Reads daemon.json as dockerd does, through links; a file that cannot be read has no options. */
function readFile(path: string): { readonly options: DockerdOptions; readonly problem?: string } {
  try {
    return { options: readDaemonOptions(factValue(readTextFile(path)), path) };
  } catch (error) {
    if (!isTartanError(error, 'CONFIG_INVALID')) throw error;
    return { options: new Map(), problem: messageOf(error) };
  }
}

/**
 * Writes subnet.env for flannel's readers.
 * @returns the path, if the content changed
 * @throws TartanError HOST_REFUSED; an older file stays as it was
 */
export function writeSubnetFile(path: string, settings: DockerSettings): readonly string[] {
  return writeVariables(path, formatSubnetEnv(settings), subnetVariables);
}

/** Units of flannel's users let other programs add variables to the same file: those stay. */
function writeVariables(path: string, ours: string, names: readonly string[]): readonly string[] {
  return writeFile(path, withVariables(readBounded(path, maxVariablesBytes), ours, names));
}

/** @returns the path, if the content changed */
function writeFile(path: string, text: string): readonly string[] {
  try {
    return writeFileAtomic(path, text, 0o644) ? [path] : [];
  } catch (cause) {
    throw new TartanError(
      'HOST_REFUSED',
      `cannot write ${path} (${messageOf(cause)}): make room or choose another path`,
      { cause },
    );
  }
}

/** `auto`: daemon.json and dockerd's flags decide. */
type DockerFirewall = 'auto' | 'iptables' | 'nftables';

/** The first version whose nftables backend knows an accept mark. */
const firstVersion = 29;

/**
 * Decides whether Docker gets the options of its nftables backend (Docker 29 on), which let packets of the overlay
 * pass. An older engine ends at an unknown flag.
 */
class FirewallBackend {
  readonly #choice: DockerFirewall;
  readonly #version: DockerdVersion;

  constructor(choice: DockerFirewall, version: DockerdVersion) {
    this.#choice = choice;
    this.#version = version;
  }

  /** @param isConfigured whether Docker's settings name nftables; it is called for `auto` only */
  async wantsOptions(isConfigured: () => boolean): Promise<{ readonly wanted: boolean; readonly problem?: string }> {
    if (this.#choice === 'iptables' || (this.#choice === 'auto' && !isConfigured())) return { wanted: false };
    const version = await this.#version.major();
    if (version !== undefined && version >= firstVersion) return { wanted: true };
    const found = version === undefined ? 'the version of dockerd cannot be told' : `dockerd is version ${version}`;
    return {
      wanted: false,
      problem:
        `Docker is to filter by nftables, which needs Docker ${firstVersion}, and ${found}: the options for it are left ` +
        `out; install Docker ${firstVersion}, or start tartand with --docker-firewall=iptables`,
    };
  }
}
