/** What `--help` says beyond the options: an example for each command, and the options for etcd in one place. */
import type { Command } from 'commander';
import { etcdOptionLines } from './settings.js';

/** By the words of the command. Its words of an example begin with them. */
export const examples: Readonly<Record<string, readonly string[]>> = {
  init: ['init --network 10.5.0.0/16', 'init --network 10.5.0.0/16 --etcd-endpoints http://192.0.2.254:2379'],
  'etcd add': ['etcd add 192.0.2.2'],
  'etcd join': ['etcd join -'],
  'etcd remove': ['etcd remove 192.0.2.2'],
  'token new': ['token new', 'token new rack-7'],
  'token revoke': ['token revoke rack-7'],
  join: ['join -', 'join http://192.0.2.254:2379 --ip-masq', 'join - --dry-run'],
  uninstall: ['uninstall --dry-run', 'uninstall'],
  status: ['status', 'status --check && echo well'],
  events: ['events --since 1h --level warn'],
  peers: ['peers --state silent', 'peers -o wide host-b'],
  doctor: ['doctor', 'doctor -o json'],
  top: ['top', 'top --count 1 -o json'],
  trace: ['trace 10.5.2.7', 'trace 10.5.2.7 --from 10.5.1.2'],
  bugreport: ['bugreport', 'bugreport --output /root/report.tar.gz'],
  ping: ['ping', 'ping --size 1464 --df host-b'],
  leases: ['leases -o wide', 'leases --etcd-endpoints http://192.0.2.254:2379'],
  'lease ls': ['lease ls -o json'],
  'lease reserve': ['lease reserve', 'lease reserve 10.5.7.0/24 --public-ip 192.0.2.7'],
  'lease release': ['lease release 10.5.7.0/24'],
  'features show': ['features show'],
  'features withdraw': ['features withdraw'],
  'config get': ['config get -o json'],
  'config set': [`config set '{"Network":"10.5.0.0/16"}'`, 'config set network.json'],
  'config validate': ['config validate network.json'],
  'docker plan': ['docker plan'],
  'docker verify': ['docker verify'],
  'docker network create': ['docker network create shop --length 26'],
  web: ['web', 'web --status hosts/*.json', 'web --hosts /etc/tartan/hosts', 'web --socket /run/tartan/web.sock'],
  leave: ['leave'],
  cleanup: ['cleanup', 'cleanup --flannel'],
  version: ['version -o json'],
};

export const exitNotes = `
Exit status: 0 ok, 1 error, 2 a check failed, 4 the daemon cannot be reached, 5 etcd cannot be reached, 64 usage.
Options that are not given are taken from TARTAN_* and FLANNELD_* variables, those for etcd from ETCDCTL_* as well, then
from the running tartand, then from its environment files (/etc/default/tartand or
/etc/sysconfig/tartand, then /etc/tartan/join.env).`;

/** @param lead the words that the program's name stands for: `lease` for subnet-lease */
export function addHelp(program: Command, lead: string): void {
  const etcdHelp = ['', 'Etcd options, of all commands that ask etcd:', ...etcdOptionLines()].join('\n');
  program.addHelpText('after', `${etcdHelp}\n${exitNotes}`);
  for (const command of program.commands) addExamples(command, program.name(), lead, [lead, command.name()]);
}

function addExamples(command: Command, program: string, lead: string, words: readonly string[]): void {
  const path = words.filter(word => word !== '').join(' ');
  for (const child of command.commands) addExamples(child, program, lead, [path, child.name()]);
  const lines = (examples[path] ?? []).map(line => `  ${program} ${lead === '' ? line : line.slice(lead.length + 1)}`);
  if (lines.length > 0)
    command.addHelpText('after', ['', lines.length === 1 ? 'Example:' : 'Examples:', ...lines].join('\n'));
}
