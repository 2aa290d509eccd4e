/**
 * The tokens that one host gives to another, each one line of text: by which a host joins, with all that it needs to reach
 * the cluster's etcd and to know that it is the right one; and by which a host gets a member of that etcd. They hold a
 * password or a private key: no message shows any part of one.
 */
import { createHash } from 'node:crypto';
import * as z from 'zod';
import { TartanError } from '../lib/errors.js';

const payloadSchema = z
  .object({
    endpoints: z
      .array(z.string().regex(/^https:\/\/\S{1,300}$/))
      .min(1)
      .max(16)
      .readonly(),
    prefix: z.string().min(1).max(512),
    /** SHA-256 of the certificate (DER) of the CA, lower-case hexadecimal. */
    ca: z.string().regex(/^[0-9a-f]{64}$/),
    user: z.string().regex(/^[\x21-\x7e]{1,100}$/),
    password: z.string().regex(/^[\x21-\x7e]{8,200}$/),
  })
  .readonly();

export type JoinToken = z.infer<typeof payloadSchema>;

const pem = z.string().regex(/^-----BEGIN [A-Z ]+-----\n[\sA-Za-z0-9+/=-]{1,10000}$/);

const memberSchema = z
  .object({
    /** The underlay address of the host that is to have the member. */
    address: z.string().regex(/^[0-9.]{7,15}$/),
    name: z.string().regex(/^[A-Za-z0-9.-]{1,253}$/),
    /** All members, as ETCD_INITIAL_CLUSTER has them. */
    cluster: z.string().regex(/^[A-Za-z0-9.,:/=-]{1,4000}$/),
    ca: pem,
    certificate: pem,
    key: pem,
  })
  .readonly();

export type MemberToken = z.infer<typeof memberSchema>;

interface TokenKind<T> {
  /** The first word of every token; the number is the version of what follows. */
  readonly start: string;
  readonly schema: z.ZodType<T>;
  /** The command that prints it. */
  readonly from: string;
}

const joinKind: TokenKind<JoinToken> = {
  start: 'tartan1',
  schema: payloadSchema,
  from: 'tartan init or tartan token new',
};
const memberKind: TokenKind<MemberToken> = { start: 'tartan-etcd1', schema: memberSchema, from: 'tartan etcd add' };
const sumLength = 8;

/** @returns `tartan1.PAYLOAD.SUM`, without spaces */
export function formatToken(token: JoinToken): string {
  return format(joinKind, token);
}

/** @returns `tartan-etcd1.PAYLOAD.SUM`, without spaces */
export function formatMemberToken(token: MemberToken): string {
  return format(memberKind, token);
}

function format<T>(kind: TokenKind<T>, token: T): string {
  const payload = Buffer.from(JSON.stringify(token)).toString('base64url');
  return `${kind.start}.${payload}.${sumOf(kind.start, payload)}`;
}

/** A word that may be a token: it must not be shown. */
export function looksLikeToken(word: string): boolean {
  return /^\s*tartan(-etcd)?\d*\./i.test(word) || /^[A-Za-z0-9_.-]{60,}$/.test(word);
}

/**
 * Line breaks and spaces within, which a mail or a terminal adds, are passed over.
 * @throws TartanError USAGE that says what is wrong and shows nothing of it
 */
export function parseToken(text: string): JoinToken {
  return parse(joinKind, text);
}

/** @see parseToken */
export function parseMemberToken(text: string): MemberToken {
  return parse(memberKind, text);
}

function parse<T>({ start, schema, from }: TokenKind<T>, text: string): T {
  const refuse = (why: string): never => {
    throw new TartanError('USAGE', `the token cannot be used: ${why}; copy the whole line that ${from} printed`);
  };
  const token = text.replace(/\s+/g, '');
  if (token === '') refuse('it is empty');
  const [, word, version = '', payload = '', sum = ''] = /^([a-z-]+)(\d+)\.([^.]*)(?:\.([^.]*))?$/.exec(token) ?? [];
  if (word === undefined || `${word}1` !== start)
    refuse(`it does not begin with ${start}. or has other than three parts`);
  if (version !== '1')
    refuse(`it is of version ${version.slice(0, 4)}, this tartan knows version 1: install a later one`);
  if (!/^[A-Za-z0-9_-]*$/.test(payload + sum)) refuse('it has characters that no token has');
  if (sum.length < sumLength) refuse('its end is missing');
  if (sum !== sumOf(start, payload)) refuse('its check sum is wrong: a character is missing, added or another one');
  try {
    return schema.parse(JSON.parse(Buffer.from(payload, 'base64url').toString('utf8')));
  } catch {
    // Neither parser's message is shown: it may quote the text.
    return refuse('what it holds is not what this version of tartan knows');
  }
}

function sumOf(start: string, payload: string): string {
  return createHash('sha256').update(`${start}.${payload}`).digest('base64url').slice(0, sumLength);
}
