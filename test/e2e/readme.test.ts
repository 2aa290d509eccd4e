/**
 * Every command of the README and of CONTRIBUTING's "From source", word for word, on a host that a real systemd runs;
 * host b is its peer. A command that stands there and not here fails.
 */
import { cpSync, mkdirSync, readFileSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, onTestFailed, test } from 'vitest';
import { SystemdHost } from '../support/systemd-host.js';
import { attempt, daemonProgram, root, run, toolProgram, until } from '../support/tools.js';
import { useLab } from '../support/use-lab.js';

const fromSource = /^## From source\n(.*?)^## /ms.exec(readFileSync(join(root, 'CONTRIBUTING.md'), 'utf8'))?.[1] ?? '';
/** Without the pictures. */
const readme = readFileSync(join(root, 'README.md'), 'utf8').replace(/^```\n.*?^```\n/gms, '') + fromSource;
/** Where systemd.sh puts the tree. */
const clone = '/usr/local/lib/node_modules/tartan';

let host: SystemdHost;
const lab = useLab({ nodes: ['b'], network: false }, async opened => {
  await opened.spaces.openHost('s', '192.0.2.9', 1500);
  host = new SystemdHost(opened.spaces, 's', 'nothing');
  // The engine's systemd driver wants D-Bus.
  await host.boot({ 'docker/daemon.json': '{"exec-opts":["native.cgroupdriver=cgroupfs"]}\n' });
  await host.run(['rm', '-f', '/usr/local/bin/tartand', '/usr/local/bin/tartan']);
});
beforeEach(() => {
  onTestFailed(async () => void process.stderr.write(`${await host.lastWords()}\n`));
});

/** The lines of the indented blocks, without remarks. */
function blockCommands(): readonly string[] {
  return readme
    .split('\n')
    .filter(line => /^ {4,}\S/.test(line))
    .map(line => line.replace(/\s+#.*$/, '').trim());
}

/** What stands between backquotes and begins with the name of a program. */
function inlineCommands(): readonly string[] {
  const programs = /^(tartand?|npm|systemctl|nft|ip|sysctl|tcpdump|iptables-save|dockerd|config\/\S+\.sh)( |$)/;
  const inline = [...readme.matchAll(/`([^`]+)`/g)].map(([, text = '']) => text.replace(/\s+/g, ' '));
  return [...new Set(inline)].filter(text => programs.test(text) && !['tartand', 'tartan'].includes(text));
}

interface Ran {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

const tried = new Set<string>();

/** In a shell of the host, in the clone. */
async function type(command: string): Promise<Ran> {
  tried.add(command);
  return host.attempt(['sh', '-c', `cd ${clone}\n${command}`]);
}

async function typed(command: string): Promise<string> {
  const { status, stdout, stderr } = await type(command);
  if (status !== 0) throw new Error(`${command}: exit status ${status}: ${stderr}${stdout}`);
  return stdout;
}

/** Runs until the condition holds, then is ended by SIGTERM. */
async function typeUntil(command: string, program: string, condition: () => Promise<boolean>): Promise<void> {
  const running = type(command);
  await until(command, condition, 30_000);
  await host.run(['pkill', '-TERM', '-x', program]);
  await running;
}

const succeeds = async (...command: readonly string[]): Promise<boolean> => (await host.attempt(command)).status === 0;

describe('fault U1: the commands of the README', () => {
  test('fault U1: build, in a copy of the tree', async () => {
    expect(blockCommands()).toContain('npm ci && npm run build');
    const copy = join(lab().spaces.directory, 'clone');
    mkdirSync(copy);
    for (const name of ['package.json', 'package-lock.json', 'tsconfig.json', 'tsconfig.build.json', 'src', 'native'])
      cpSync(join(root, name), join(copy, name), { recursive: true, preserveTimestamps: true });
    // As set-up does it where something is missing, and nothing may be downloaded here.
    expect(readFileSync(join(root, 'test/support/setup.sh'), 'utf8')).toContain('npm ci');
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
    await run(['npm', 'run', 'build', '--prefix', copy]);
    const version = await run([process.execPath, join(copy, 'dist/tartan.js'), '--version']);
    expect(version).toContain(JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')).version);
    tried.add('npm ci && npm run build');
  });

  test('fault U1: the commands of a cluster from nothing, which tests of their own run', () => {
    const runs = {
      'tartan init --network 10.5.0.0/16': ['init', "'init', '--network', '10.5.0.0/16'"],
      'tartan join -': ['init', "'join', '-'"],
      'tartan uninstall': ['init', "'uninstall'"],
      'tartan join': ['join', "tartan('join'"],
      'systemctl restart docker': ['join', "'--restart-docker'"],
      'npm run package': ['package', 'test/support/package.sh'],
      // apt's own part is in the long tests, on root trees of distributions.
      'apt install ./tartan_0.1.0_amd64.deb': ['package', "'dpkg', '--force-depends', '-i'"],
      'tartan join http://192.0.2.254:2379': ['join', "'join', etcd"],
      'tartan init': ['init', "['init']"],
      'tartan etcd add ADDRESS': ['etcd-members', '`tartan etcd add ${address} '],
      'tartan etcd join -': ['etcd-members', "'etcd', 'join', '-'"],
      'tartan token new': ['init', "'token', 'new'"],
      'tartan token revoke NAME': ['init', "'token', 'revoke', "],
    };
    for (const [command, [file = '', words = '']] of Object.entries(runs)) {
      expect(readFileSync(join(root, `test/e2e/${file}.test.ts`), 'utf8'), command).toContain(words);
      tried.add(command);
    }
  });

  test('fault U1: installation, network document, daemon and units', async () => {
    await typed('for name in tartand tartan; do ln -sf "$PWD/dist/$name.js" "/usr/local/bin/$name"; done');
    await typed('ln -sf "$PWD/dist/tartan.js" /usr/local/bin/subnet-lease');
    await typed(`tartan config set '{"Network":"10.5.0.0/16"}' --etcd-endpoints http://192.0.2.254:2379`);
    host.write('/run/flannel/subnet.env', 'FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.1.1/24\n');
    await typeUntil('tartand --etcd-endpoints http://192.0.2.254:2379 --ip-masq', 'node', async () =>
      succeeds('tartan', 'status', '--check'),
    );
    // No chance lets a host have what is reserved below.
    lab().node('b').preferSubnet('10.5.2.0/24');
    await lab().node('b').bringUp();
    await typed('install -D -m 644 config/systemd/tartand.service /etc/systemd/system/tartand.service');
    await typed(
      'install -D -m 644 config/systemd/docker.service.d/tartan.conf /etc/systemd/system/docker.service.d/tartan.conf',
    );
    await typed('install -m 600 config/tartand.default /etc/default/tartand');
    const settings = host
      .read('/etc/default/tartand')
      .replace('#TARTAN_ETCD_ENDPOINTS=http://127.0.0.1', 'TARTAN_ETCD_ENDPOINTS=http://192.0.2.254')
      .replace('#TARTAN_IP_MASQ', 'TARTAN_IP_MASQ');
    host.write('/etc/default/tartand', settings.replace('#TARTAN_DOCKER_SUBNET_LEN', 'TARTAN_DOCKER_SUBNET_LEN'));
    const verified = await host.attempt(['systemd-analyze', 'verify', 'tartand.service', 'docker.service']);
    expect(verified.stderr.split('\n').filter(line => /tartan/.test(line))).toEqual([]);
    await typed('install -D -m 644 config/sysusers.d/tartan.conf /etc/sysusers.d/tartan.conf && systemd-sysusers');
    await typed('systemctl daemon-reload && systemctl enable --now tartand');
    expect(await host.show('tartand', 'ActiveState')).toBe('active');
  });

  test('fault U1: Docker, and what a look shows', async () => {
    const address = /^FLANNEL_SUBNET=(.*)$/m.exec(host.read('/run/flannel/subnet.env'))?.[1]?.replace('/24', '/25');
    await typeUntil('. /run/tartan/docker.env; dockerd $DOCKER_NETWORK_OPTIONS', 'dockerd', async () => {
      if (!(await succeeds('docker', 'version'))) return false;
      expect(await host.run(['ip', '-br', 'address', 'show', 'docker0'])).toContain(` ${address} `);
      expect(await typed('tartan docker plan')).toContain(address);
      await typed('tartan docker network create shop');
      tried.add('tartan docker network create');
      await typed('tartan docker verify');
      await typed('tartan doctor');
      return true;
    });
    expect(await typed('tartan status')).toContain('ready');
    await typed('tartan status --check');
    expect(await typed('tartan bugreport --output /root/report.tar.gz')).toMatch(/^wrote .* \(mode 0600\)\n/);
    const reported = await host.run(['sh', '-c', 'tar -xOf /root/report.tar.gz']);
    for (const part of ['"kind": "Status"', '"daemon.ready"', '"kind": "LeaseList"', 'sysctls.txt: '])
      expect(reported).toContain(part);
    expect(await typed('tartan events --since 1h')).toContain('Docker may start');
    expect(await typed('tartan peers')).toContain('192.0.2.1');
    expect(await typed('tartan top --count 1')).toContain('packets/s');
    // No container of b has it.
    expect((await type('tartan trace 10.5.2.7')).stdout).toMatch(/^(arrives|lost) at /m);
    expect(await typed('tartan ping')).toContain('3 of 3');
    expect(await typed('tartan leases')).toContain('192.0.2.9');
    expect(await typed('tartan features show')).toContain('10.5.');
    const ask = ['node', '-e', "fetch('http://127.0.0.1:8286/data/leases').then(r => r.text()).then(console.log)"];
    const web = type('tartan web');
    await until('the page', async () => (await host.attempt(ask)).stdout.includes('192.0.2.9'), 30_000);
    await host.run(['pkill', '-TERM', '-f', '^\\S*node \\S*tartan web$']);
    expect((await web).status).toBe(0);
    await typed('tartan lease reserve 10.5.7.0/24 --node-id ID');
  });

  test('fault U1: what stands within the text', async () => {
    host.write('/run/FILE', '{"Network":"10.5.0.0/16"}');
    await typed('cd /run; tartan config validate FILE');
    tried.add('tartan config validate FILE');
    expect(await typed('tartand --help')).toContain('--etcd-endpoints');
    expect(await typed('iptables-save | grep tartan')).toContain('tartan0');
    expect(await typed('sysctl net.ipv4.conf.tartan0.forwarding')).toContain('= 1');
    expect(await typed('systemctl status tartand')).toMatch(/ready, .*etcd answer/);
    await typed('tartan docker-opts -d /run/flannel/subnet.env');
    tried.add('tartan docker-opts');
    // It wrote the whole file: our lines are put back beside its own (fault F2).
    const shared = (): string => host.read('/run/flannel/subnet.env');
    await until('both in one file', () => /^FLANNEL_SUBNET=10[^]*^DOCKER_OPTS=/m.test(shared()));
    // Neither is there: rules are iptables' here, and an editor needs a terminal.
    expect((await type('nft list table ip tartan')).stderr).toContain('No such file');
    await typed('EDITOR=true SYSTEMD_EDITOR=true; export EDITOR SYSTEMD_EDITOR; systemctl edit tartand || :');
    tried.add('systemctl edit tartand');
    await typed('timeout 0.5 tcpdump -ni docker0 || :');
    tried.add('tcpdump -ni docker0');
    await typed('sh -n config/etcd-role.sh');
    tried.add('config/etcd-role.sh');
  });

  test('fault U1: the end of a host, and nothing else stands there', async () => {
    await typed('systemctl disable --now tartand');
    expect(await typed('tartan features withdraw')).not.toBe('');
    await typed('rm /etc/systemd/system/docker.service.d/tartan.conf && systemctl daemon-reload');
    expect(await typed('tartan cleanup')).toContain('removed');
    await typed('tartan cleanup --flannel');
    expect(await typed('tartan leave')).toContain('which is free now');
    await typed('ip route flush proto 167');
    // `npm test` is what runs here; the demo is part `docker` of the long tests; the bench wants a quiet machine.
    const benches = ['npm run bench -- --acceptance --record', 'npm run bench -- --only idle'];
    const elsewhere = ['npm run demo', 'npm test', 'npm run demo -- --keep', ...benches];
    const commands = [...blockCommands(), ...inlineCommands()];
    expect(commands.filter(command => !tried.has(command) && !elsewhere.includes(command))).toEqual([]);
  });
});

test.each([
  ['tartand', daemonProgram, 78],
  ['tartan', toolProgram, 1],
])('fault U13: %s refuses an older Node.js before it loads anything else', async (_, program, status) => {
  const older = "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '18.19.0' } })";
  const preload = `data:text/javascript,${encodeURIComponent(older)}`;
  const outcome = await attempt([process.execPath, '--import', preload, program, '--version']);
  expect(outcome).toMatchObject({ status, stdout: '' });
  expect(outcome.stderr).toContain(`Node.js 18.19.0 (${process.execPath}) is too old, expected 20 or later`);
});
