/** Reads the host for a bug report, and writes the archive. */
import { closeSync, constants, fchmodSync, openSync, rmSync, writeFileSync } from 'node:fs';
import { runCommand } from '../../host/firewall/command.js';
import { readTextFile } from '../../lib/file.js';
import type { EvidencePort } from '../ports.js';

export const evidencePort: EvidencePort = {
  readFile: readTextFile,
  run: async (program, args) => {
    // The runner has a time limit of its own, and gives the bytes as Latin-1.
    const output = await runCommand(program, args, '', new AbortController().signal);
    return Buffer.from(output, 'latin1').toString('utf8');
  },
  writeNew: (path, bytes) => {
    const { O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW } = constants;
    const fd = openSync(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    try {
      fchmodSync(fd, 0o600);
      writeFileSync(fd, bytes);
    } catch (error) {
      rmSync(path, { force: true });
      throw error;
    } finally {
      closeSync(fd);
    }
  },
};
