/** `tartan web`: reads its options, refuses what other hosts could read without a token and TLS, and serves until it is ended. */
import { readToken } from '../admin/access.js';
import {
  parseListenAddress,
  readTlsIdentity,
  requireProtection,
  type ListenAddress,
  type TlsIdentity,
} from '../admin/listen-place.js';
import { resolvePath } from '../cli/paths.js';
import { messageOf } from '../lib/errors.js';
import type { Log } from '../lib/log.js';
import { aborted, Scope } from '../lib/scope.js';
import { shown } from '../model/ip.js';
import { OtherHosts } from '../web/other-hosts.js';
import type { PageSources } from '../web/page-data.js';
import { readHostList } from '../web/host-list.js';
import { RemoteDocument } from '../web/remote-document.js';
import { Refreshed } from '../web/refreshed.js';
import { SavedDocument } from '../web/saved-documents.js';
import { openWebServer } from '../web/web-server.js';
import type { Call } from './commands.js';
import { exitStatus, ToolError, usageError, type ExitStatus } from './error.js';
import { leaseListOf } from './lease-view.js';
import type { ToolStore } from './ports.js';
import { defaultWebListen, type OptionValues } from './settings.js';
import { withoutControls } from './table.js';

interface WebOptions {
  readonly where: ListenAddress | { readonly socketPath: string };
  readonly tokenFile: string | undefined;
  readonly tls: TlsIdentity | undefined;
  readonly statusFiles: readonly string[];
  readonly hostsFile: string | undefined;
}

const statusMs = 1_000;
/** etcd is not asked more often, however many look. */
const leasesMs = 10_000;

export async function serveWeb(call: Call, values: OptionValues): Promise<ExitStatus> {
  const { io } = call;
  const options = readWebOptions(values);
  const token = options.tokenFile === undefined ? undefined : readToken(options.tokenFile, '--token-file');
  // A wrong option is told at once.
  await call.settings.etcd();
  const others = await openOthers(options);
  const note = (text: string): void => io.stderr(`note: ${withoutControls(text)}\n`);
  for (const text of [...(token?.notes ?? []), ...(options.tls?.notes ?? [])]) note(text);
  if (!token && 'ip' in options.where)
    note('every user of this host can read the page; --socket or --token-file forbid that');
  const scope = new Scope();
  try {
    const sources = openSources(call, scope);
    const log = logOn(note);
    const { where, tls } = options;
    const server = await scope.own('page', openWebServer({ where, token: token?.token, tls, sources, others, log }));
    io.stdout(`the page is at ${server.place} until this program is ended (Ctrl-C)\n`);
    const { signal } = io.ports.terminal.onInterrupt();
    await aborted(signal).catch(() => {});
  } finally {
    await scope.close();
  }
  return exitStatus.ok;
}

function readWebOptions(values: OptionValues): WebOptions {
  const [certFile, keyFile] = [pathOf(values, 'tlsCert', '--tls-cert'), pathOf(values, 'tlsKey', '--tls-key')];
  const socketPath = pathOf(values, 'socket', '--socket');
  const tokenFile = pathOf(values, 'tokenFile', '--token-file');
  if ((certFile === undefined) !== (keyFile === undefined))
    throw usageError('--tls-cert and --tls-key belong together, and one is missing');
  if (socketPath !== undefined && values['listen'] !== undefined)
    throw usageError('--listen and --socket exclude each other, give one');
  if (socketPath !== undefined && certFile !== undefined)
    throw usageError('--tls-cert has no meaning with --socket: the mode of the socket decides who may connect');
  const listen = typeof values['listen'] === 'string' ? values['listen'] : defaultWebListen;
  const where = socketPath === undefined ? parseListenAddress(listen, '--listen') : { socketPath };
  if ('ip' in where) {
    const given = { token: tokenFile !== undefined, tls: certFile !== undefined };
    requireProtection(where, given, { listen: '--listen', token: '--token-file', tls: '--tls-cert with --tls-key' });
  }
  const sources = { certFile: '--tls-cert', keyFile: '--tls-key' };
  const tls = certFile !== undefined && keyFile !== undefined ? readTlsIdentity(certFile, keyFile, sources) : undefined;
  const hostsFile = pathOf(values, 'hosts', '--hosts');
  const files = values['status'];
  return { where, tokenFile, tls, statusFiles: Array.isArray(files) ? files.map(String) : [], hostsFile };
}

function pathOf(values: OptionValues, name: string, source: string): string | undefined {
  const text = values[name];
  if (typeof text !== 'string') return undefined;
  const path = resolvePath(text);
  if (path === undefined) throw usageError(`${source}: '${shown(text)}' is not a path`);
  return path;
}

/** A file that is none is told at once; one that is spoiled later, and a host that is away, is told on the page. */
async function openOthers({ statusFiles, hostsFile }: WebOptions): Promise<OtherHosts> {
  const remote = hostsFile === undefined ? [] : readHostList(hostsFile, '--hosts');
  const saved = statusFiles.map(path => new SavedDocument(path));
  const others = new OtherHosts([...saved, ...remote.map(place => new RemoteDocument(place))]);
  if (saved.length === 0) return others;
  const bad = (await others.readNow()).slice(0, saved.length).find(({ failure }) => failure !== null);
  if (bad?.failure) throw new ToolError(exitStatus.error, bad.failure, 'take it out of --status, or write it anew');
  return others;
}

/** Takes settings for etcd anew after a failure: the daemon that knows them may have come meanwhile. */
function openSources({ io: { ports }, settings }: Call, scope: Scope): PageSources {
  const { runDir, stateDir } = settings;
  let nodeId = settings.nodeId;
  let store: ToolStore | undefined;
  scope.defer('etcd', () => store?.close());
  const readStatus = async (): ReturnType<PageSources['status']['read']> => {
    const reading = await ports.readStatus(runDir);
    if (reading.kind !== 'status') throw new Error(reading.reason);
    nodeId ??= reading.status.node.id;
    return reading.status;
  };
  const readEvents = async (): ReturnType<PageSources['events']['read']> => {
    const reading = await ports.readEvents(runDir, stateDir, 0);
    if (reading.kind !== 'events') throw new Error(reading.reason);
    return reading.list.events;
  };
  const readLeases = async (): ReturnType<PageSources['leases']['read']> => {
    store ??= await ports.openStore((await settings.etcd()).options);
    try {
      return leaseListOf(await store.listLeases(), nodeId);
    } catch (error) {
      const failed = store;
      store = undefined;
      await failed.close();
      throw error;
    }
  };
  return {
    status: new Refreshed(readStatus, statusMs, messageOf),
    events: new Refreshed(readEvents, statusMs, messageOf),
    leases: new Refreshed(readLeases, leasesMs, messageOf),
  };
}

/** Errors of the page reach the operator who runs it. */
function logOn(note: (text: string) => void): Log {
  const say = (_: string, message: string): void => note(message);
  return { debug() {}, info() {}, warn: say, error: say };
}
