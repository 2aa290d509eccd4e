/** The two files on disk: `subnet.env` (flannel's readers) and `docker.env` (Docker's unit), mode 0644. */
import { rmSync } from 'node:fs';
import { TartanError, messageOf } from '../lib/errors.js';
import { readBounded, writeFileAtomic } from '../lib/file.js';
import type { DockerFiles } from './docker.js';
import { formatDockerEnv, formatSubnetEnv, parseSubnetEnv } from './settings.js';

export interface EnvFilePaths {
  readonly subnetFile: string;
  readonly dockerEnvFile: string;
}

export function openEnvFiles(paths: EnvFilePaths): DockerFiles {
  return {
    previousSubnet() {
      const text = readBounded(paths.subnetFile, 64 * 1024);
      return text === undefined ? undefined : parseSubnetEnv(text);
    },
    write(settings) {
      const files = [
        [paths.subnetFile, formatSubnetEnv(settings)],
        [paths.dockerEnvFile, formatDockerEnv(settings)],
      ] as const;
      return files.filter(([path, text]) => writeEnvFile(path, text)).map(([path]) => path);
    },
    remove() {
      for (const path of [paths.subnetFile, paths.dockerEnvFile]) rmSync(path, { force: true });
    },
  };
}

function writeEnvFile(path: string, text: string): boolean {
  try {
    return writeFileAtomic(path, text, 0o644);
  } catch (cause) {
    throw new TartanError(
      'HOST_REFUSED',
      `cannot write ${path} (${messageOf(cause)}): make room or choose another path`,
      { cause },
    );
  }
}
