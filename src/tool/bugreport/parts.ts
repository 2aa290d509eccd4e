/** What a bug report is made of. Each part is gathered by itself: one that fails or hangs leaves the others as they are. */
import { version } from '../../cli/version.js';
import type { EnvironmentFile } from '../../cli/environment-file.js';
import type { Status } from '../../agent/status.js';
import { leaseListOf } from '../lease-view.js';
import { withStore, type Call } from '../commands.js';
import { diagnose } from '../doctor.js';

/** A text, or a document that becomes JSON. */
export type PartContent = { readonly text: string } | { readonly document: unknown };

export interface Part {
  /** In the archive. */
  readonly name: string;
  readonly gather: () => Promise<PartContent>;
}

const unit = 'tartand';
const defaultPort = 8285;
/** Sysctls that decide over our packets, of the host and of links. */
const hostSysctls = [
  'net.ipv4.ip_forward',
  'net.ipv4.conf.all',
  'net.core.rmem_max',
  'net.core.wmem_max',
  'net.core.wmem_default',
];

/** @param status as the daemon gave it; undefined while it cannot be asked */
export function partsOf(
  call: Call,
  status: Status | undefined,
  environment: EnvironmentFile | undefined,
): readonly Part[] {
  return [
    ...daemonParts(call, environment),
    ...fileParts(call, status),
    ...hostParts(call, status),
    ...etcdParts(call),
  ];
}

function daemonParts(call: Call, environment: EnvironmentFile | undefined): readonly Part[] {
  const { io, settings } = call;
  const events = async () => {
    const reading = await io.ports.readEvents(settings.runDir, settings.stateDir, 0);
    if (reading.kind === 'unreachable') throw new Error(reading.reason);
    return reading.list;
  };
  return [
    { name: 'version.txt', gather: async () => ({ text: `tartan ${version}, Node.js ${process.versions.node}\n` }) },
    {
      name: 'status.json',
      gather: async () => {
        const reading = await io.ports.readStatus(settings.runDir);
        if (reading.kind === 'unreachable') throw new Error(reading.reason);
        return { document: reading.status };
      },
    },
    { name: 'events.json', gather: async () => ({ document: await events() }) },
    {
      name: 'options.json',
      gather: async () => {
        const started = (await events()).events.findLast(({ event }) => event === 'daemon.starting');
        if (!started) throw new Error('no start of the daemon is among the events');
        return { document: { time: started.time, ...started.fields } };
      },
    },
    { name: 'doctor.json', gather: async () => ({ document: await diagnose(call) }) },
    { name: 'environment.json', gather: async () => ({ document: environmentDocument(environment) }) },
  ];
}

/** The variables as the daemon gets them, without the comments between them. */
function environmentDocument(environment: EnvironmentFile | undefined): object {
  if (!environment) throw new Error('there is no environment file');
  if (environment.problem !== undefined) throw new Error(`${environment.path}: ${environment.problem}`);
  return { file: environment.path, variables: Object.fromEntries(environment.variables) };
}

function fileParts({ io, settings }: Call, status: Status | undefined): readonly Part[] {
  const file = (name: string, path: string): Part => ({
    name,
    gather: async () => {
      const text = io.ports.evidence.readFile(path);
      if (!text.known) throw new Error(text.why);
      if (text.value === undefined) throw new Error(`there is no ${path}`);
      return { text: text.value };
    },
  });
  const stateDir = status?.daemon?.stateDir ?? settings.stateDir;
  return [
    file('state.json', `${stateDir}/state.json`),
    file('subnet.env', status?.daemon?.subnetFile ?? settings.subnetFile),
    file('docker.env', status?.docker?.envFile ?? settings.dockerEnvFile),
    file('daemon.json', status?.docker?.daemonJsonFile ?? '/etc/docker/daemon.json'),
    file('os-release.txt', '/etc/os-release'),
  ];
}

function hostParts({ io }: Call, status: Status | undefined): readonly Part[] {
  const run = (name: string, program: string, ...args: readonly string[]): Part => ({
    name,
    gather: async () => ({ text: await io.ports.evidence.run(program, args) }),
  });
  const links = [...new Set(['tartan0', 'docker0', ...(status?.interface ? [status.interface.name] : [])])];
  const port = status?.backend?.port ?? defaultPort;
  const sysctls = [...hostSysctls, ...links.map(link => `net/ipv4/conf/${link}`)];
  return [
    run('uname.txt', 'uname', '-a'),
    run('links.json', 'ip', '-j', '-d', 'link', 'show'),
    run('addresses.json', 'ip', '-j', 'address', 'show'),
    run('routes.json', 'ip', '-j', 'route', 'show', 'table', 'all'),
    run('rules.json', 'ip', '-j', 'rule', 'show'),
    run('sockets.txt', 'ss', '-lunp', 'sport', '=', `:${port}`),
    // A link that is not there is an error of its own, and no reason to leave out the others.
    run('sysctls.txt', 'sysctl', '-e', ...sysctls),
    run('iptables-save.txt', 'iptables-save'),
    run('nft-ruleset.txt', 'nft', 'list', 'ruleset'),
    run('journal.txt', 'journalctl', '--no-pager', '-q', '-o', 'short-iso', '-n', '500', '-u', unit),
  ];
}

function etcdParts(call: Call): readonly Part[] {
  return [
    {
      name: 'leases.json',
      gather: async () => ({ document: leaseListOf(await withStore(call, store => store.listLeases()), undefined) }),
    },
  ];
}
