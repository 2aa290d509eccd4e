/** Declares the commands that set a host up, and take that back. What they load is loaded by them alone. */
import type { Command } from 'commander';
import type { FlagName } from '../cli/flags.js';
import { addFlag } from './settings.js';
import type { Run } from './tool.js';

/** The flags of tartand that `join` writes down as they are given. */
export const passedFlags = [
  'ip-masq',
  'iface',
  'public-ip',
  'engine',
  'docker-subnet-len',
  'docker-firewall',
  'lease-ttl',
  'healthz-port',
  'metrics',
] as const satisfies readonly FlagName[];

/** Those that say how etcd is reached, where there is no token. */
export const joinEtcdFlags = [
  'etcd-prefix',
  'etcd-cafile',
  'etcd-certfile',
  'etcd-keyfile',
  'etcd-username',
  'etcd-password-file',
  'insecure-etcd',
] as const satisfies readonly FlagName[];

export function addSetup(parent: Command, run: Run): void {
  addJoin(parent, run);
  addUninstall(parent, run);
}

function addJoin(parent: Command, run: Run): void {
  const command = parent
    .command('join')
    .description(
      'make this host a member of a cluster: checks etcd, enables and starts tartand, hands Docker its settings',
    )
    .argument('[place...]', "'-' for the token of tartan init (asked for, or standard input), or the URLs of etcd")
    .option('--token-file <file>', 'a file that holds the token');
  addPassed(command)
    .option('--restart-docker', 'restart Docker at the end where it must be: its containers stop')
    .action((words: string[]) =>
      run(command, async (call, values) => (await import('./join.js')).joinCluster(call, words, values)),
    );
}

function addPassed(command: Command): Command {
  for (const name of passedFlags) addFlag(command, name);
  for (const name of joinEtcdFlags) addFlag(command, name);
  return addDryRun(command);
}

function addDryRun(command: Command): Command {
  return command.option('--dry-run', 'check everything and print the steps, change nothing');
}

function addUninstall(parent: Command, run: Run): void {
  const command = parent
    .command('uninstall')
    .description('take back what tartan join did: stops tartand, gives the subnet away, removes what is of tartan');
  addDryRun(command).action(() =>
    run(command, async (call, values) => (await import('./uninstall.js')).uninstall(call, values)),
  );
}
