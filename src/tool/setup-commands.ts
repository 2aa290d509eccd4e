/** Declares the commands that set a host up, and take that back. What they load is loaded by them alone. */
import type { Command } from 'commander';
import type { FlagName } from '../cli/flags.js';
import { addFlag, etcdAccessFlags } from './settings.js';
import type { Run } from './tool.js';

/** The flags of tartand that `join` writes down as they are given. */
export const passedFlags = [
  'ip-masq',
  'iface',
  'public-ip',
  'engine',
  'docker-subnet-len',
  'docker-pools',
  'docker-firewall',
  'lease-ttl',
  'healthz-port',
  'metrics',
] as const satisfies readonly FlagName[];

export function addSetup(parent: Command, run: Run): void {
  addInit(parent, run);
  addJoin(parent, run);
  addUninstall(parent, run);
  addEtcd(parent.command('etcd').description('the members of the etcd that tartan init made'), run);
  addTokens(parent.command('token').description('the tokens by which hosts join'), run);
}

function addInit(parent: Command, run: Run): void {
  const command = parent
    .command('init')
    .description(
      'begin a cluster on its first host: etcd with TLS and users where none is given, the network document, and join',
    )
    .option('--network <cidr>', 'the network of all containers, such as 10.5.0.0/16; nothing else may use it');
  addFlag(command, 'etcd-endpoints');
  addPassed(command).action(() =>
    run(command, async (call, values) => (await import('./init.js')).initCluster(call, values)),
  );
}

function addEtcd(parent: Command, run: Run): void {
  const add = parent
    .command('add')
    .description(
      'on the host of tartan init: print the token of a member on another host, and wait until it takes part',
    )
    .argument('<address>', 'of that host');
  addFlag(add, 'etcd-prefix').action((address: string) =>
    run(add, async (call, values) => (await import('./etcd-commands.js')).addMember(call, address, values)),
  );
  const join = parent
    .command('join')
    .description('set up the member of this host, by the token of tartan etcd add')
    .argument('<place>', "'-' for the token (asked for, or standard input)");
  addDryRun(join).action((word: string) =>
    run(join, async (call, values) => (await import('./etcd-commands.js')).joinMember(call, word, values)),
  );
  const remove = parent
    .command('remove')
    .description('on the host of tartan init: end the member on another host')
    .argument('<address>', 'of that host');
  addFlag(remove, 'etcd-prefix').action((address: string) =>
    run(remove, async (call, values) => (await import('./etcd-commands.js')).removeMember(call, address, values)),
  );
}

function addTokens(parent: Command, run: Run): void {
  const create = parent
    .command('new')
    .description('make a token with an etcd user of its own, and show it once')
    .argument('[name]', 'of the user (one that is made up)');
  addFlag(create, 'etcd-prefix').action((name: string | undefined) =>
    run(create, async (call, values) => (await import('./token-commands.js')).createToken(call, name, values)),
  );
  const revoke = parent
    .command('revoke')
    .description('end a token: hosts that joined by it lose their way to etcd, and their subnets in a while')
    .argument('<name>', 'of the user')
    .option('--force', 'also where hosts of it are there');
  addFlag(revoke, 'etcd-prefix').action((name: string) =>
    run(revoke, async (call, values) => (await import('./token-commands.js')).revokeToken(call, name, values)),
  );
}

function addJoin(parent: Command, run: Run): void {
  const command = parent
    .command('join')
    .description(
      'make this host a member of a cluster: checks etcd, enables and starts tartand, hands Docker its settings',
    )
    .argument('[place...]', "'-' for the token of tartan init (asked for, or standard input), or the URLs of etcd")
    .option('--token-file <file>', 'a file that holds the token');
  addPassed(command).action((words: string[]) =>
    run(command, async (call, values) => (await import('./join.js')).joinCluster(call, words, values)),
  );
}

function addPassed(command: Command): Command {
  for (const name of passedFlags) addFlag(command, name);
  for (const name of etcdAccessFlags) addFlag(command, name);
  command.option('--restart-docker', 'restart Docker at the end where it must be: its containers stop');
  return addDryRun(command);
}

function addDryRun(command: Command): Command {
  return command.option('--dry-run', 'check everything and print the steps, change nothing');
}

function addUninstall(parent: Command, run: Run): void {
  const command = parent
    .command('uninstall')
    .description('take back what tartan join did: stops tartand, gives the subnet away, removes what is of tartan');
  command.option('--destroy-etcd', 'also where leases of other hosts are in the etcd of this one');
  addDryRun(command).action(() =>
    run(command, async (call, values) => (await import('./uninstall.js')).uninstall(call, values)),
  );
}
