/**
 * The files on disk: `subnet.env` (flannel's readers), `docker.env` (Docker's unit), mode 0644, and only when asked
 * for Docker's own daemon.json. Settings stand in one of the last two, never in both.
 */
import { isTartanError, messageOf, TartanError } from '../../lib/errors.js';
import { readBounded, writeFileAtomic, readTextFile } from '../../lib/file.js';
import { conflictsWithFile, conflictsWithFlags, flagsFor, formatConflict } from './conflicts.js';
import type { DockerFiles, DockerWriteResult } from '../docker.js';
import { parseDockerdFlags, readDaemonOptions, type DockerdOptions } from './dockerd-options.js';
import { findDockerdFlags } from './dockerd-places.js';
import { factValue } from '../../lib/fact.js';
import { FirewallBackend, type DockerFirewall } from './firewall-backend.js';
import { mergeDaemonJson, unmergeDaemonJson } from './merge.js';
import { readMergeMemory } from './merge-memory.js';
import {
  engineOptions,
  formatDockerEnv,
  formatSubnetEnv,
  nftablesOptions,
  parseSubnetEnv,
  type EngineOption,
} from './settings.js';

export interface DockerFileOptions {
  readonly subnetFile: string;
  readonly dockerEnvFile: string;
  readonly stateDir: string;
  readonly docker: {
    /** Where the settings go. */
    readonly config: 'env' | 'daemon-json';
    readonly daemonJsonFile: string;
    /** Length of docker0's part of the lease; 0 for the whole. */
    readonly subnetLength: number;
    readonly firewall: DockerFirewall;
  };
}

/** What tests set up apart from this host's. */
export interface DockerPlaces {
  /** Where the files of Docker's packages and units are. */
  readonly root: string;
  readonly dockerd: string;
}

export function openDockerFiles(
  options: DockerFileOptions,
  { root, dockerd }: DockerPlaces = { root: '/', dockerd: 'dockerd' },
): DockerFiles {
  const { subnetFile, dockerEnvFile, docker } = options;
  const backend = new FirewallBackend(docker.firewall, dockerd);
  const seesNftables = (): boolean =>
    readFile(docker.daemonJsonFile).options.get('firewall-backend') === 'nftables' ||
    findDockerdFlags(dockerEnvFile, root).some(
      ({ flag: [key, value] }) => key === 'firewall-backend' && value === 'nftables',
    );
  return {
    previousSubnet() {
      const text = readBounded(subnetFile, 64 * 1024);
      return text === undefined ? undefined : parseSubnetEnv(text);
    },
    async write(settings) {
      const { wanted, problem } = await backend.wantsOptions(seesNftables);
      const basic = engineOptions(settings, docker.subnetLength);
      const all = wanted ? [...basic, ...nftablesOptions] : basic;
      const written = writeFile(subnetFile, formatSubnetEnv(settings));
      const report = docker.config === 'env' ? writeFlags(options, all) : writeMerged(options, all, root);
      return {
        written: [...written, ...report.written],
        conflicts: [...report.conflicts, ...(problem === undefined ? [] : [problem])],
        needsForwarding: wanted,
      };
    },
  };
}

type FileReport = Omit<DockerWriteResult, 'needsForwarding'>;

function writeFlags(
  { dockerEnvFile, stateDir, docker }: DockerFileOptions,
  wanted: readonly EngineOption[],
): FileReport {
  const unmerged = unmergeDaemonJson(stateDir);
  const path = docker.daemonJsonFile;
  const { options, problem } = readFile(path);
  const written = writeFile(dockerEnvFile, formatDockerEnv(flagsFor(wanted, options)));
  return {
    written: [...(unmerged?.changed ? [unmerged.file] : []), ...written],
    conflicts: problem === undefined ? conflictsWithFlags(wanted, options, path).map(formatConflict) : [problem],
  };
}

function writeMerged(options: DockerFileOptions, wanted: readonly EngineOption[], root: string): FileReport {
  const { dockerEnvFile, docker } = options;
  const path = docker.daemonJsonFile;
  // A dockerd that runs may have its flags from our docker.env, or what it has from the time before the merge.
  const isMerged = readMergeMemory(options.stateDir)?.file === path;
  const own = parseDockerdFlags((readBounded(dockerEnvFile, 64 * 1024) ?? '').split(/[ "]/)).map(flag =>
    flag.join('='),
  );
  const flags = findDockerdFlags(dockerEnvFile, root).filter(({ running }) => !(running && isMerged));
  const [conflict] = conflictsWithFile(wanted, readFile(path).options, path, { flags, own });
  if (conflict) throw new TartanError('CONFIG_INVALID', `${formatConflict(conflict)}; ${path} is left as it was`);
  const merged = mergeDaemonJson({ ...options, ...docker }, wanted);
  // Empty, so that units that insist on the file start Docker.
  const written = writeFile(dockerEnvFile, formatDockerEnv([]));
  return { written: [...(merged ? [docker.daemonJsonFile] : []), ...written], conflicts: [] };
}

/** daemon.json as dockerd reads it, through links; what cannot be read has no options. */
function readFile(path: string): { readonly options: DockerdOptions; readonly problem?: string } {
  try {
    return { options: readDaemonOptions(factValue(readTextFile(path)), path) };
  } catch (error) {
    if (!isTartanError(error, 'CONFIG_INVALID')) throw error;
    return { options: new Map(), problem: messageOf(error) };
  }
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
