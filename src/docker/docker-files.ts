/**
 * The files on disk: `subnet.env` (flannel's readers), `docker.env` (Docker's unit), mode 0644, and only when asked
 * for Docker's own daemon.json. Settings stand in one of the last two, never in both.
 */
import { TartanError, messageOf } from '../lib/errors.js';
import { readBounded, writeFileAtomic } from '../lib/file.js';
import { conflictsWithFlags, flagsFor, readDaemonJson, refuseFlags, saysNftables } from './conflicts.js';
import type { DockerFiles, DockerReport } from './docker.js';
import { findDockerdFlags } from './dockerd-flags.js';
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
    saysNftables(readDaemonJson(docker.daemonJsonFile), findDockerdFlags(['firewall-backend'], dockerEnvFile, root));
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
      };
    },
  };
}

function writeFlags(
  { dockerEnvFile, stateDir, docker }: DockerFileOptions,
  wanted: readonly EngineOption[],
): DockerReport {
  const unmerged = unmergeDaemonJson(stateDir);
  const text = readDaemonJson(docker.daemonJsonFile);
  const written = writeFile(dockerEnvFile, formatDockerEnv(flagsFor(wanted, text)));
  return {
    written: [...(unmerged?.changed ? [unmerged.file] : []), ...written],
    conflicts: conflictsWithFlags(wanted, text, docker.daemonJsonFile),
  };
}

function writeMerged(options: DockerFileOptions, wanted: readonly EngineOption[], root: string): DockerReport {
  const { dockerEnvFile, docker } = options;
  const isMerged = readMergeMemory(options.stateDir)?.file === docker.daemonJsonFile;
  const dockerEnv = isMerged ? undefined : (readBounded(dockerEnvFile, 64 * 1024) ?? '');
  refuseFlags(wanted, { ...options, dockerEnv, root });
  const merged = mergeDaemonJson({ ...options, ...docker }, wanted);
  // Empty, so that units that insist on the file start Docker.
  const written = writeFile(dockerEnvFile, formatDockerEnv([]));
  return { written: [...(merged ? [docker.daemonJsonFile] : []), ...written], conflicts: [] };
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
