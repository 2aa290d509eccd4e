/** Runs the programs that packages are made with. No shell is involved, and the environment is the same everywhere. */
import { spawnSync } from 'node:child_process';

/**
 * @param env beside PATH and HOME; nothing else of the caller's environment is passed, so that it changes no byte
 * @returns what it wrote to its standard output
 * @throws Error with the end of what the program wrote, when it fails
 */
export function run(command: string, args: readonly string[], env: Readonly<Record<string, string>> = {}): string {
  const { PATH = '', HOME = '/' } = process.env;
  const { status, error, stderr, stdout } = spawnSync(command, args, {
    env: { PATH: `${PATH}:/usr/sbin:/sbin`, HOME, LC_ALL: 'C.UTF-8', TZ: 'UTC', ...env },
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  });
  if (error) throw new Error(`cannot run ${command}: ${error.message}`);
  if (status !== 0) throw new Error(`${command} ended with ${status}: ${`${stdout}${stderr}`.slice(-2000).trim()}`);
  return stdout;
}
