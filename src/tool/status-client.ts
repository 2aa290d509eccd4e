/**
 * Asks the running daemon for its Status over the local socket. No daemon, no right to ask, no answer in time and an
 * answer that is not a Status are all the same to the caller: unreachable, with the reason.
 */
import { z } from 'zod';
import { statusSocketPath } from '../admin/status-server.js';
import { apiVersion, type Status } from '../agent/status.js';
import { errnoOf, messageOf } from '../lib/errors.js';
import { askSocket } from '../lib/socket-http.js';
import type { StatusReading } from './ports.js';

const timeoutMs = 2000;
/** 5000 peers are half a megabyte. */
const maxBytes = 16 * 1024 * 1024;

const statusSchema: z.ZodType<Status> = z.object({
  apiVersion: z.literal(apiVersion),
  kind: z.literal('Status'),
  version: z.string(),
  phase: z.enum(['starting', 'waiting-for-network', 'waiting-for-lease', 'configuring', 'ready', 'lost', 'stopping']),
  ready: z.boolean(),
  problems: z.array(z.string()),
  node: z.object({ id: z.string(), bootId: z.string(), publicIp: z.string().nullable() }),
  lease: z
    .object({
      subnet: z.string(),
      state: z.enum(['held', 'unknown', 'gone', 'lost']),
      deadlineSeconds: z.number().nullable(),
    })
    .nullable(),
  network: z.string().nullable(),
  backend: z.object({ type: z.string(), port: z.number().nullable() }).nullable(),
  interface: z.object({ name: z.string(), address: z.string(), mtu: z.number() }).nullable(),
  // Absent in what an older daemon says.
  docker: z
    .object({
      bip: z.string(),
      mtu: z.number(),
      masquerade: z.boolean(),
      forward: z.boolean(),
      config: z.enum(['env', 'daemon-json']),
      envFile: z.string(),
      daemonJsonFile: z.string(),
    })
    .nullable()
    .default(null),
  peers: z.array(
    z.object({
      subnet: z.string(),
      publicIp: z.string(),
      nodeId: z.string().nullable(),
      // Absent in what an older daemon says.
      state: z.enum(['live', 'held-down', 'remembered']).default('live'),
      secondsLeft: z.number().nullable().default(null),
    }),
  ),
  rejected: z.array(z.object({ key: z.string(), reason: z.string() })),
  datapath: z
    .object({
      engine: z.string(),
      pid: z.number().nullable(),
      threads: z.number(),
      generationPublished: z.number(),
      generationAdopted: z.number(),
      respawns: z.number(),
      // Absent in what an older daemon says.
      features: z.array(z.string()).default([]),
      warnings: z.array(z.string()),
      counters: z.record(z.string(), z.number()),
    })
    .nullable(),
});

export async function readStatus(runDir: string): Promise<StatusReading> {
  const path = statusSocketPath(runDir);
  try {
    const parsed = statusSchema.safeParse(JSON.parse(await fetchText(path)));
    if (parsed.success) return { kind: 'status', status: parsed.data };
    const where = parsed.error.issues[0]?.path.join('.') ?? '';
    return {
      kind: 'unreachable',
      reason: `what answers on ${path} is not this tartand (${where || 'document'} differs)`,
    };
  } catch (error) {
    return { kind: 'unreachable', reason: reasonOf(path, error) };
  }
}

async function fetchText(socketPath: string): Promise<string> {
  const { status, text } = await askSocket({ socketPath, path: '/status', timeoutMs, maxBytes });
  if (status !== 200) throw new Error(`the answer was HTTP ${status}`);
  return text;
}

function reasonOf(path: string, error: unknown): string {
  if (error instanceof Error && error.name === 'AbortError')
    return `nothing answered on ${path} within ${timeoutMs} ms`;
  switch (errnoOf(error)) {
    case 'ENOENT':
      return `there is no socket ${path}`;
    case 'ECONNREFUSED':
      return `nobody listens on ${path}`;
    case 'EACCES':
    case 'EPERM':
      return `${path} is for root and members of the group tartan`;
    default:
      return `${path}: ${messageOf(error)}`;
  }
}
