/**
 * Takes secrets out of texts before they leave this host: what is called a password, token, secret or key (but a file's
 * path), logins in URLs, PEM blocks, and each secret that is known, wherever it stands. In doubt it takes out too much.
 */

export const removed = '(removed)';

const names = '(?:pass(?:word|wd|phrase)|pwd|psk|tokens?|secrets?|keys?|credentials?)';
const secretWord = new RegExp(`${names}$`, 'i');
/** What is called like this is where a secret stands, and not the secret. */
const placeWord = /^(?:file|path|dir)$/i;
const keyWord = /keys?$/i;
/** Of what is called a key: also keys of etcd have this form. */
const pathText = /^(?:\/[\w.:@&-]+){2,}\/?$/;
/** A shorter one is taken out where it stands alone: it is a part of many words. */
const longEnough = 4;

/** The shell's name for the working directory. */
const directories = new Set(['PWD', 'OLDPWD']);

/** Tells whether a variable, flag or member of this name holds a secret. */
export function isSecretName(name: string): boolean {
  if (directories.has(name)) return false;
  const words = name
    .replace(/([a-z0-9])([A-Z])/g, '$1_$2')
    .split(/[^A-Za-z0-9]+/)
    .filter(word => word !== '');
  if (/(?:file|path|dir)$/i.test(words.at(-1) ?? '') || placeWord.test(words.at(-1) ?? '')) return false;
  return words.some(word => secretWord.test(word));
}

/** Tells whether the value is one: a path of a file, or of etcd, is none. */
export function isSecret(name: string, value: string): boolean {
  if (!isSecretName(name) || value === '' || value === removed) return false;
  const isKeyOnly = keyWord.test(name) && !/pass|pwd|psk|token|secret|credential/i.test(name);
  return !(isKeyOnly && pathText.test(value));
}

export class SecretFilter {
  readonly #known: readonly RegExp[];
  /** How many secrets were taken out. */
  count = 0;

  /** @param secrets in plain text; empty ones are left out */
  constructor(secrets: Iterable<string>) {
    const forms = new Set([...secrets].flatMap(formsOf));
    // The longest first: one may begin with another.
    this.#known = [...forms].sort((a, b) => b.length - a.length).map(patternOf);
  }

  /** Cleans a text of any form. */
  clean(text: string): string {
    return this.#cleanKnown(this.#cleanForms(text));
  }

  /** Cleans a document of JSON by its members too. */
  cleanJson(document: unknown): string {
    return this.#cleanKnown(JSON.stringify(this.#cleanValue(document), undefined, 2) ?? '');
  }

  #cleanValue(value: unknown): unknown {
    if (Array.isArray(value)) return value.map(item => this.#cleanValue(item));
    if (typeof value === 'string') return this.clean(value);
    if (typeof value !== 'object' || value === null) return value;
    const members = Object.entries(value).map(([name, member]) => [
      this.#cleanKnown(name),
      this.#cleanMember(name, member),
    ]);
    return Object.fromEntries(members);
  }

  #cleanMember(name: string, member: unknown): unknown {
    const isPlain = typeof member === 'string' || typeof member === 'number';
    if (isPlain && isSecret(name, String(member))) return this.#take();
    if (typeof member === 'object' && member !== null && isSecretName(name)) return this.#take();
    return this.#cleanValue(member);
  }

  #cleanKnown(text: string): string {
    return this.#known.reduce((clean, pattern) => clean.replace(pattern, () => this.#take()), text);
  }

  #cleanForms(text: string): string {
    const take = (): string => this.#take();
    const heads = [
      [/\b([a-z][a-z0-9+.-]*:\/\/)[^\s"'`<>]*@/gi, '@'],
      [/\b(authorization["']?\s*[:=]\s*["']?(?:basic |bearer )?)[^\s"',]+/gi, ''],
      [/\b(bearer\s+)[\w.~+/=-]{8,}/gi, ''],
    ] as const;
    // A block that is cut off has no end.
    let clean = text.replace(/-----BEGIN [^-\n]{1,60}-----[^]*?(?:-----END [^-\n]{1,60}-----|$)/g, take);
    for (const [pattern, tail] of heads) clean = clean.replace(pattern, (_, head: string) => `${head}${take()}${tail}`);
    return this.#cleanNamed(this.#cleanNamed(clean, assignment), option);
  }

  /** A value is read after the name of a secret only: so the time is bounded, and what stands within others is found. */
  #cleanNamed(text: string, pattern: RegExp): string {
    const parts: string[] = [];
    let at = 0;
    pattern.lastIndex = 0;
    for (let match = pattern.exec(text); match; match = pattern.exec(text)) {
      const [whole, name = ''] = match;
      const valueAt = match.index + whole.length;
      pattern.lastIndex = valueAt - 1;
      if (!isSecretName(name)) continue;
      value.lastIndex = valueAt;
      const [found = ''] = value.exec(text) ?? [];
      if (!isSecret(name, found.replace(/^["']|["']$/g, ''))) continue;
      parts.push(text.slice(at, valueAt), this.#take());
      at = valueAt + found.length;
      pattern.lastIndex = at;
    }
    return [...parts, text.slice(at)].join('');
  }

  #take(): string {
    this.count++;
    return removed;
  }
}

const value = /"(?:[^"\\]|\\[^])*"?|'[^']*'?|(?:\\\n|\S)+/y;
/** Before a name; a text of JSON has line feeds as two letters. */
const before = String.raw`(?<=^|\\[nrt]|[^\w-])`;
/** NAME=value, name: value, "name": "value", with quotes that JSON in JSON has escaped. */
const assignment = new RegExp(String.raw`${before}((?:--?)?[A-Za-z_][\w.-]*)\\?["']?[ \t]*[=:][ \t]*\\?`, 'g');
/** --name value */
const option = new RegExp(String.raw`${before}(--?[A-Za-z][\w-]*)(?:["']?,?[ \t]+|["'],)`, 'g');

/** How a secret may stand in a text. */
function formsOf(secret: string): readonly string[] {
  if (secret.trim() === '') return [];
  const json = JSON.stringify(secret).slice(1, -1);
  const base64 = Buffer.from(secret).toString('base64');
  return [
    secret,
    json,
    encodeURIComponent(secret),
    ...(secret.length >= longEnough ? [base64.replace(/=+$/, '')] : []),
  ];
}

function patternOf(form: string): RegExp {
  const plain = form.replace(/[.*+?^${}()|[\]\\]/g, String.raw`\$&`);
  return new RegExp(form.length >= longEnough ? plain : String.raw`(?<!\w)${plain}(?!\w)`, 'g');
}
