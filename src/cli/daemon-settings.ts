/**
 * The settings by which the daemon reaches etcd, as the status socket gives them to the tool: places, never a secret. The
 * schema also parses what another version of the daemon gives.
 */
import * as z from 'zod';
import type { FlagName } from './flags.js';
import type { EtcdOptions } from '../store/etcd/options.js';

const text = z.string().max(4096);

export const daemonSettingsSchema = z
  .object({
    apiVersion: z.literal('tartan/v1'),
    kind: z.literal('Settings'),
    etcd: z
      .object({
        endpoints: z.array(text).readonly(),
        prefix: text,
        /** Paths of files; null for none. */
        caFile: text.nullable(),
        certFile: text.nullable(),
        keyFile: text.nullable(),
        username: text.nullable(),
        /** null also where the password itself was given. */
        passwordFile: text.nullable(),
        insecure: z.boolean(),
      })
      .readonly(),
  })
  .readonly();

export type DaemonSettings = z.infer<typeof daemonSettingsSchema>;

export function daemonSettingsOf(etcd: EtcdOptions, passwordFile: string | undefined): DaemonSettings {
  const { endpoints, prefix, caFile = null, certFile = null, keyFile = null, username = null } = etcd;
  const files = { caFile, certFile, keyFile, username, passwordFile: passwordFile ?? null };
  const insecure = etcd.insecureEtcd === true;
  return { apiVersion: 'tartan/v1', kind: 'Settings', etcd: { endpoints, prefix, ...files, insecure } };
}

/** The settings as values of the flags; what the daemon has not is absent. */
export function flagTextsOf({ etcd }: DaemonSettings): ReadonlyMap<FlagName, string> {
  const texts: readonly (readonly [FlagName, string | null])[] = [
    ['etcd-endpoints', etcd.endpoints.join(',')],
    ['etcd-prefix', etcd.prefix],
    ['etcd-cafile', etcd.caFile],
    ['etcd-certfile', etcd.certFile],
    ['etcd-keyfile', etcd.keyFile],
    ['etcd-username', etcd.username],
    ['etcd-password-file', etcd.passwordFile],
    ['insecure-etcd', etcd.insecure ? 'true' : null],
  ];
  return new Map(texts.flatMap(([name, value]) => (value ? [[name, value] as const] : [])));
}
