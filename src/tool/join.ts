/** `tartan join`: makes this host a member of a cluster, by steps that are printed and undone when one fails. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { openKernelHost } from '../host/kernel-host.js';
import { chooseUnderlay, type UnderlayChoice } from '../host/underlay/choose.js';
import { messageOf, TartanError } from '../lib/errors.js';
import { silentLog } from '../lib/log.js';
import { formatIpv4, parseIpv4, parsePrefix, prefixContains } from '../model/ip.js';
import { parseNetworkConfig } from '../model/network.js';
import { findFlag, type FlagName } from '../cli/flags.js';
import { parseEtcdOptions } from '../cli/etcd-options.js';
import { readCa } from '../setup/ca-chain.js';
import { paths, readSetupState, readUnit } from '../setup/setup-state.js';
import { planJoin, type JoinRequest } from '../setup/join-plan.js';
import { recordJoin } from '../setup/joined.js';
import { runProgram, runSetup, type SetupStep } from '../setup/step.js';
import { looksLikeToken, parseToken, type JoinToken } from '../setup/token.js';
import { examineEtcd } from '../store/etcd/examine.js';
import type { EtcdOptions } from '../store/etcd/options.js';
import type { Status } from '../agent/status.js';
import { daemonStatus, type Call } from './commands.js';
import { exitStatus, ToolError, type ExitStatus } from './error.js';
import { readSecret } from './secret-input.js';
import { etcdAccessFlags, type OptionValues } from './settings.js';
import { passedFlags } from './setup-commands.js';

const runDir = findFlag('run-dir')?.fallback ?? '';
const stateDir = findFlag('state-dir')?.fallback ?? '';
const readyMs = 60_000;
/** A daemon that ends each time is not waited for. */
const restartsAtMost = 3;
const peersMs = 15_000;
const peersWanted = 2;

export async function joinCluster(call: Call, words: readonly string[], values: OptionValues): Promise<ExitStatus> {
  requireRoot();
  const token = await readTokenOf(words, values);
  return joinBy(call, token ?? words, values);
}

/** @param by a token, or the endpoints of an etcd */
export async function joinBy(call: Call, by: JoinToken | readonly string[], values: OptionValues): Promise<ExitStatus> {
  const say = (line: string): void => call.io.stdout(`${line}\n`);
  const dryRun = values['dryRun'] === true;
  const passed = flagTexts(passedFlags, values);
  const underlay = await findUnderlay(passed);
  say(`underlay: ${formatIpv4(underlay.address)} on ${underlay.name} (${underlay.reason})`);
  const state = await readSetupState();
  const { request, options } =
    'ca' in by
      ? await byToken(by, passed, say)
      : await byEndpoints(by, new Map([...passed, ...flagTexts(etcdAccessFlags, values)]), say);
  const { steps, settle, restarts } = planJoin(request, state);
  const before = restarts ? (await daemonStatus(call).catch(() => undefined))?.daemon?.pid : undefined;
  const runs = state.tartand.active === 'active' && !restarts;
  await runSetup([...steps, ...(runs ? [] : [waitStep(call, before, state.tartand.active === 'active')])], {
    say,
    dryRun,
    settle,
  });
  if (dryRun) return exitStatus.ok;
  if (steps.length === 0) say('everything is in place already');
  const status = await daemonStatus(call);
  say(`this host has ${status.lease?.subnet ?? 'no subnet yet'} of ${status.network ?? 'no network'}`);
  await recordJoin({ ...options, ...('ca' in by ? { caFile: paths.ca } : {}) }, status.node.id);
  const reached = await checkPeers(call, say);
  await finishDocker(status, values['restartDocker'] === true, say);
  return reached ? exitStatus.ok : exitStatus.checkFailed;
}

export function requireRoot(): void {
  if (process.getuid?.() !== 0)
    throw new ToolError(exitStatus.error, 'this changes the set-up of this host', 'run it as root');
}

/** @returns undefined where the words are endpoints; neither words nor a token are ever shown */
async function readTokenOf(words: readonly string[], values: OptionValues): Promise<JoinToken | undefined> {
  const file = values['tokenFile'];
  if (words.some(word => word !== '-' && looksLikeToken(word)))
    throw new ToolError(
      exitStatus.usage,
      'a token must not be an argument: every user of this host can read those',
      'make another with tartan token new, and give it to: tartan join -   (or --token-file FILE)',
    );
  if (words.some(word => word !== '-' && !/^https?:\/\//i.test(word)))
    throw new ToolError(
      exitStatus.usage,
      'an argument is neither - nor a URL (it is not shown, it may be secret)',
      'give tartan join - for a token, or the URLs of etcd: tartan join http://192.0.2.254:2379',
    );
  const given = [words.includes('-'), typeof file === 'string', words.some(word => word !== '-')];
  if (given.filter(Boolean).length !== 1)
    throw new ToolError(
      exitStatus.usage,
      'expected one of: - for a token from standard input, --token-file FILE, URLs of etcd',
      'tartan join -',
    );
  if (typeof file === 'string') return parseToken(readTokenFile(file));
  return words.includes('-') ? parseToken(await readSecret('token: ')) : undefined;
}

function readTokenFile(path: string): string {
  try {
    return readFileSync(path, { encoding: 'utf8' }).slice(0, 65_536);
  } catch (cause) {
    throw new ToolError(exitStatus.usage, `--token-file: ${messageOf(cause)}`, 'give a file that holds the token', {
      cause,
    });
  }
}

export function flagTexts(names: readonly FlagName[], values: OptionValues): Map<FlagName, string> {
  const texts = new Map<FlagName, string>();
  for (const name of names) {
    const value = values[name.replace(/-([a-z])/g, (_, letter: string) => letter.toUpperCase())];
    if (value === true) texts.set(name, 'true');
    if (typeof value !== 'string') continue;
    const { kind, min = 0, max = 0 } = findFlag(name) ?? {};
    const odd = kind === 'integer' && !(/^\d{1,9}$/.test(value) && Number(value) >= min && Number(value) <= max);
    if (odd || !/^[\x20-\x7e]{1,4096}$/.test(value))
      throw new TartanError(
        'USAGE',
        `--${name} cannot be this, expected ${odd ? `${min} to ${max}` : 'printable text'}`,
      );
    texts.set(name, value);
  }
  return texts;
}

export async function findUnderlay(flags: ReadonlyMap<FlagName, string>): Promise<UnderlayChoice> {
  const host = openKernelHost({ log: silentLog });
  const publicIp = flags.get('public-ip');
  const iface = flags.get('iface');
  try {
    return await chooseUnderlay(host, {
      iface: iface === undefined ? [] : [iface],
      ifaceRegex: [],
      ...(publicIp === undefined ? {} : { publicIp: parseIpv4(publicIp) }),
    });
  } finally {
    await host.close();
  }
}

interface Access {
  readonly request: JoinRequest;
  readonly options: EtcdOptions;
}

async function byToken(
  token: JoinToken,
  passed: ReadonlyMap<FlagName, string>,
  say: (line: string) => void,
): Promise<Access> {
  const ca = await readCa(token.endpoints, token.ca);
  say('etcd shows the CA that the token names');
  const options = { endpoints: token.endpoints, prefix: token.prefix, username: token.user, password: token.password };
  // The client wants a file, and nothing of this host changes before all is checked.
  const folder = mkdtempSync(join(tmpdir(), 'tartan-join-'));
  try {
    const caFile = join(folder, 'ca.pem');
    writeFileSync(caFile, ca, { mode: 0o600 });
    await checkEtcd({ ...options, caFile }, say);
  } finally {
    rmSync(folder, { recursive: true });
  }
  const flags = new Map<FlagName, string>([
    ['etcd-endpoints', token.endpoints.join(',')],
    ['etcd-prefix', token.prefix],
    ['etcd-cafile', paths.ca],
    ['etcd-username', token.user],
    ['etcd-password-file', paths.password],
    ...passed,
  ]);
  return { request: { flags, ca, password: token.password }, options };
}

/** @throws TartanError USAGE, CONFIG_INVALID */
export function readEndpoints(words: readonly string[], given: ReadonlyMap<FlagName, string>): EtcdOptions {
  const text = words.join(',');
  const passwordFile = given.get('etcd-password-file');
  return parseEtcdOptions({
    endpoints: { text, source: 'tartan join' },
    prefix: { text: given.get('etcd-prefix') ?? findFlag('etcd-prefix')?.fallback ?? '', source: '--etcd-prefix' },
    caFile: given.get('etcd-cafile'),
    certFile: given.get('etcd-certfile'),
    keyFile: given.get('etcd-keyfile'),
    username: given.get('etcd-username') ?? '',
    password: '',
    passwordFile: passwordFile === undefined ? undefined : { text: passwordFile, source: '--etcd-password-file' },
    insecureEtcd: given.has('insecure-etcd'),
  }).options;
}

async function byEndpoints(
  words: readonly string[],
  given: ReadonlyMap<FlagName, string>,
  say: (line: string) => void,
): Promise<Access> {
  const options = readEndpoints(words, given);
  await checkEtcd(options, say);
  const flags = new Map<FlagName, string>([['etcd-endpoints', options.endpoints.join(',')], ...given]);
  return { request: { flags, ca: undefined, password: undefined }, options };
}

async function checkEtcd(options: EtcdOptions, say: (line: string) => void): Promise<void> {
  const { versions, clusterId, silent, networkText } = await examineEtcd(options);
  for (const reason of silent) say(`note: an endpoint does not answer: ${reason}`);
  if (networkText === undefined)
    throw new ToolError(
      exitStatus.error,
      `etcd has no network document at ${options.prefix}/config`,
      `write one: tartan config set '{"Network":"10.5.0.0/16"}' --etcd-endpoints ${options.endpoints.join(',')}`,
    );
  const { network } = parseNetworkConfig(networkText);
  say(`etcd ${versions.join(', ')}, cluster ${clusterId}: its clock runs, this user may do all that is needed`);
  await refuseOverlap(network);
}

/** A network that contains an address of the underlay would cut this host off. */
async function refuseOverlap(network: ReturnType<typeof parsePrefix>): Promise<void> {
  const host = openKernelHost({ log: silentLog });
  try {
    for (const { name, addresses } of await host.interfaces())
      for (const { address } of addresses)
        if (prefixContains(network, address) && !/^(tartan|docker|br-|flannel|cni)/.test(name))
          throw new TartanError(
            'CONFIG_INVALID',
            `the network of the cluster contains ${formatIpv4(address)} of ${name}: this host cannot join it`,
          );
  } finally {
    await host.close();
  }
}

/** @param before the process number of the daemon that is replaced */
function waitStep(call: Call, before: number | undefined, ran: boolean): SetupStep {
  const wait = async (): Promise<void> => {
    const endMs = performance.now() + readyMs;
    let last = 'it does not answer';
    while (performance.now() < endMs) {
      const reading = await call.io.ports.readStatus(runDir);
      if (reading.kind === 'status') {
        const { ready, daemon, problems, phase } = reading.status;
        if (ready && (before === undefined || daemon?.pid !== before)) return;
        last = problems[0] ?? phase;
      } else if ((await readUnit('tartand.service')).restarts >= restartsAtMost) break;
      await delay(200);
    }
    throw new Error(`tartand does not become ready: ${last}; see why with journalctl -u tartand`);
  };
  const undo = async (): Promise<void> => {
    if (ran) return;
    await runProgram(['systemctl', 'stop', 'tartand.service']);
    // A daemon that ended by itself leaves the unit "failed", also when it is stopped then.
    if ((await readUnit('tartand.service')).active === 'failed')
      await runProgram(['systemctl', 'reset-failed', 'tartand.service']);
    await call.io.ports.cleanup({ runDir, stateDir, flannel: false });
  };
  return {
    text: `wait until tartand has a subnet, at most ${readyMs / 1000} s`,
    undo: 'tartan leave; tartan cleanup',
    action: { kind: 'call', do: wait, undo },
  };
}

/** @returns false where packets to a peer do not pass */
async function checkPeers(call: Call, say: (line: string) => void): Promise<boolean> {
  const endMs = performance.now() + peersMs;
  for (;;) {
    const { peers, backend } = await daemonStatus(call);
    const asked = peers.filter(({ watched }) => watched !== null && watched.state !== 'unwatched');
    const up = asked.filter(({ watched }) => watched?.state === 'up');
    if (asked.length === 0) {
      say('no other host of tartan is there yet: UDP was not tried');
      return true;
    }
    if (up.length >= Math.min(peersWanted, asked.length)) {
      say(
        `UDP passes to ${up
          .slice(0, peersWanted)
          .map(({ publicIp }) => publicIp)
          .join(' and ')}`,
      );
      return true;
    }
    if (performance.now() > endMs) {
      const silent = asked.find(({ watched }) => watched?.state !== 'up');
      say(
        `UDP ${backend?.port ?? ''} to ${silent?.publicIp ?? ''} is not answered: ${silent?.watched?.reason ?? 'no answer yet'}; ` +
          `next: ${silent?.watched?.nextStep ?? `open UDP ${backend?.port ?? ''} between the hosts, then look at tartan peers`}`,
      );
      return false;
    }
    await delay(300);
  }
}

async function finishDocker(status: Status, restart: boolean, say: (line: string) => void): Promise<void> {
  const docker = await readUnit('docker.service');
  if (docker.load === 'not-found') return say('Docker is not installed: it gets its settings when it is');
  const host = openKernelHost({ log: silentLog });
  const links = await host.interfaces().finally(() => host.close());
  const subnet = status.lease ? parsePrefix(status.lease.subnet) : undefined;
  const bridge = links.find(({ name }) => name === 'docker0');
  if (subnet && bridge?.addresses.some(({ address }) => prefixContains(subnet, address)))
    return say('Docker has its subnet: containers of this host are reached');
  if (docker.active !== 'active') return say('left to do: systemctl start docker');
  if (!restart)
    return say('left to do: systemctl restart docker   (its containers stop; tartan join --restart-docker does it)');
  say('systemctl restart docker   (undo: tartan uninstall, then systemctl restart docker)');
  await runProgram(['systemctl', 'restart', 'docker.service']);
}
