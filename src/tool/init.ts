/** `tartan init`: begins a cluster on its first host, and makes that a member. */
import { hostname } from 'node:os';
import { silentLog } from '../lib/log.js';
import { formatPrefix, parsePrefix, samePrefix, type Prefix } from '../model/ip.js';
import { parseNetworkConfig } from '../model/network.js';
import { makeCertificates, caFingerprint } from '../setup/certificates.js';
import { endpointOf, etcdData, etcdPaths, etcdUser, planEtcd, refuseOverlapping } from '../setup/etcd-plan.js';
import {
  administratorOptions,
  checkEtcdVersion,
  hasOwnEtcd,
  newSecret,
  newToken,
  newUserName,
  readEtcdFacts,
  readOwnNetworks,
  removeCertificates,
  removeEtcdData,
} from '../setup/own-etcd.js';
import { readSetupState, readShipped, readUnit } from '../setup/setup-state.js';
import { runSetup, type SetupStep } from '../setup/step.js';
import { openEtcd } from '../store/etcd/etcd-kv.js';
import { EtcdUsers, roleName } from '../store/etcd/users.js';
import type { EtcdOptions } from '../store/etcd/options.js';
import { getNetworkText, putNetworkText } from '../store/operator.js';
import { withStore, type Call } from './commands.js';
import { exitStatus, ToolError, type ExitStatus } from './error.js';
import { findUnderlay, flagTexts, joinBy, readEndpoints, requireRoot } from './join.js';
import { etcdAccessFlags, type OptionValues } from './settings.js';
import { passedFlags } from './setup-commands.js';
import { prefixOf, showToken } from './token-commands.js';

const callMs = 10_000;

export async function initCluster(call: Call, values: OptionValues): Promise<ExitStatus> {
  requireRoot();
  if (hasOwnEtcd()) return showState(call, prefixOf(values));
  const network = readNetworkOption(values['network']);
  const endpoints = values['etcdEndpoints'];
  return typeof endpoints === 'string'
    ? initWithEtcd(call, network, endpoints.split(','), values)
    : initOwnEtcd(call, network, values);
}

function readNetworkOption(given: unknown): Prefix {
  if (typeof given !== 'string')
    throw new ToolError(exitStatus.usage, '--network is missing', 'tartan init --network 10.5.0.0/16');
  const network = parsePrefix(given);
  parseNetworkConfig(documentOf(network));
  return network;
}

function documentOf(network: Prefix): string {
  return JSON.stringify({ Network: formatPrefix(network) });
}

async function initWithEtcd(
  call: Call,
  network: Prefix,
  words: readonly string[],
  values: OptionValues,
): Promise<ExitStatus> {
  const given = flagTexts(etcdAccessFlags, values);
  const options = readEndpoints(words, given);
  const kv = openEtcd(options, silentLog);
  try {
    const signal = AbortSignal.timeout(callMs);
    const text = await getNetworkText(kv, options.prefix, { signal });
    if (text === undefined) {
      refuseOverlapping(network, await readOwnNetworks());
      const step = documentStep(options, network);
      await runSetup([step], { say: line => call.io.stdout(`${line}\n`), dryRun: values['dryRun'] === true });
      if (values['dryRun'] === true) return exitStatus.ok;
    } else if (!samePrefix(parseNetworkConfig(text).network, network)) {
      throw new ToolError(
        exitStatus.error,
        `etcd has another network document: ${text.slice(0, 200)}`,
        `join that cluster: tartan join ${options.endpoints.join(' ')}`,
      );
    }
  } finally {
    await kv.close();
  }
  const status = await joinBy(call, options.endpoints, values);
  call.io.stdout(
    `on each other host, with the options for etcd that were given here: tartan join ${options.endpoints.join(' ')}\n`,
  );
  return status;
}

function documentStep(options: EtcdOptions, network: Prefix): SetupStep {
  const write = async (): Promise<void> => {
    const kv = openEtcd(options, silentLog);
    const signal = AbortSignal.timeout(callMs);
    await putNetworkText(kv, options.prefix, documentOf(network), { signal }).finally(() => kv.close());
  };
  return {
    text: `write the network document ${documentOf(network)}`,
    undo: `etcdctl del ${options.prefix}/config`,
    action: { kind: 'call', do: write },
  };
}

async function initOwnEtcd(call: Call, network: Prefix, values: OptionValues): Promise<ExitStatus> {
  const say = (line: string): void => call.io.stdout(`${line}\n`);
  const dryRun = values['dryRun'] === true;
  const underlay = await findUnderlay(flagTexts(passedFlags, values));
  await readSetupState();
  refuseOverlapping(network, await readOwnNetworks());
  const prefix = prefixOf(values);
  const rootPassword = newSecret();
  const effects = {
    checkVersion: checkEtcdVersion,
    makeCertificates: () => makeCertificates(underlay.address),
    removeCertificates: async () => removeCertificates(),
    removeData: async () => removeEtcdData(),
    makeUsers: () => makeUsers(endpointOf(underlay.address), prefix, rootPassword, documentOf(network)),
  };
  const request = {
    address: underlay.address,
    name: hostname().replace(/[^A-Za-z0-9.-]+/g, '-') || 'first',
    clusterToken: newSecret(),
    rootPassword,
    unitText: readShipped('systemd/tartan-etcd.service'),
  };
  const steps = planEtcd(request, await readEtcdFacts(), effects);
  await runSetup(steps, { say, dryRun, settle: [['systemctl', 'daemon-reload']] });
  if (dryRun) {
    say('would then make this host a member, as tartan join does');
    return exitStatus.ok;
  }
  const joined = await joinBy(call, await newToken(prefix, newUserName()), values).catch((error: unknown) => {
    say(`the cluster's etcd runs, this host is no member yet: tartan token new | tartan join -`);
    throw error;
  });
  sayAboutEtcd(say);
  showToken(call, await newToken(prefix, newUserName()));
  return joined;
}

async function makeUsers(endpoint: string, prefix: string, rootPassword: string, document: string): Promise<void> {
  const open = { endpoints: [endpoint], prefix, caFile: etcdPaths.ca };
  const users = new EtcdUsers(open);
  try {
    await users.makeRole();
    await users.enable(rootPassword);
  } finally {
    users.close();
  }
  const kv = openEtcd({ ...open, username: 'root', password: rootPassword }, silentLog);
  const signal = AbortSignal.timeout(callMs);
  await putNetworkText(kv, prefix, document, { signal }).finally(() => kv.close());
}

function sayAboutEtcd(say: (line: string) => void): void {
  const login = `set -a; . ${etcdPaths.administrator}`;
  say(
    'etcd has one member, which is no cluster: without this host nothing new is leased. Two more, one after the other: ' +
      'tartan etcd add ADDRESS here, tartan etcd join - on the host with that address',
  );
  say(`a snapshot of etcd: ${login}; etcdctl snapshot save FILE`);
  say(
    `played back, with etcdutl where etcd is 3.6: systemctl stop tartan-etcd; mv ${etcdData} ${etcdData}.old; set -a; . ${etcdPaths.settings}; ` +
      `etcdctl snapshot restore FILE --data-dir $ETCD_DATA_DIR --name $ETCD_NAME --initial-cluster $ETCD_INITIAL_CLUSTER ` +
      `--initial-cluster-token $ETCD_INITIAL_CLUSTER_TOKEN --initial-advertise-peer-urls $ETCD_INITIAL_ADVERTISE_PEER_URLS; ` +
      `chown -R ${etcdUser}: ${etcdData}; systemctl start tartan-etcd`,
  );
}

/** What there is, and never a secret. */
async function showState(call: Call, prefix: string): Promise<ExitStatus> {
  const say = (line: string): void => call.io.stdout(`${line}\n`);
  const options = administratorOptions(prefix);
  const [endpoint = ''] = options.endpoints;
  const { active } = await readUnit('tartan-etcd.service');
  say(`this host has the etcd of its cluster: ${endpoint}, tartan-etcd.service is ${active}, CA ${caFingerprint()}`);
  const users = new EtcdUsers(options);
  try {
    const names = (await users.names()).filter(name => name !== 'root');
    say(`users of tokens: ${names.join(', ') || 'none'} (role ${roleName}); another: tartan token new`);
  } finally {
    users.close();
  }
  const network = await withStore(call, store => store.getNetworkText()).catch(() => undefined);
  say(
    network === undefined
      ? 'this host is no member: tartan token new, then tartan join -'
      : `network document: ${network}`,
  );
  return exitStatus.ok;
}
