/** Who owns what is inside of a package, with the words of each licence; those of Apache's and of Node.js are files of their own. */
import type { BundledModule } from './bundle.js';

const rule = '-'.repeat(78);

/** @param apache where the text of the Apache licence lies once the package is installed, below the prefix */
export function formatCopyright(apache: string, modules: readonly BundledModule[]): string {
  const parts = [
    'tartan, an overlay network for Docker hosts.',
    'Copyright: the authors of tartan.',
    `Licence: Apache-2.0, the Apache License, Version 2.0: ${apache}, on Debian also /usr/share/common-licenses/Apache-2.0.`,
    'The programs for the kernel (native/bpf) may be used under GPL-2.0, too: /usr/share/common-licenses/GPL-2 on Debian.',
    'bin/node is Node.js; the licences of what it is made of are in node-licence.gz beside this file.',
    'The JavaScript files hold the modules below.',
    ...modules.map(module => describeModule(module, apache)),
  ];
  return `${parts.join('\n\n')}\n`;
}

function describeModule({ name, version, licence, text }: BundledModule, apache: string): string {
  const head = `${rule}\n${name} ${version}, licence ${licence}`;
  if (text === undefined) return `${head}, as its package.json says`;
  return /Apache License\s+Version 2\.0/.test(text)
    ? `${head}: ${apache}\n\n${ownersIn(text)}`.trimEnd()
    : `${head}\n\n${text}`;
}

/** The lines of a long licence that name somebody. */
function ownersIn(text: string): string {
  return text
    .split('\n')
    .filter(line => /^\s*copyright\s.*\d{4}/i.test(line) && !line.includes('[yyyy]'))
    .map(line => line.trim())
    .join('\n');
}
