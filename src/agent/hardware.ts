/**
 * The identity that a machine has from its maker, as a hash: the value itself is nobody's business. Many makers leave a
 * default in its place, which names no machine.
 */
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** SMBIOS, then the devicetree of machines without it; below /sys. Root alone may read the first. */
const sources = ['class/dmi/id/product_uuid', 'firmware/devicetree/base/serial-number'];

/** Defaults of vendors and of virtual machines, as hexadecimal digits. */
const defaults = new Set([
  '03000200040005000006000700080009',
  '00020003000400050006000700080009',
  '030201000504070608090a0b0c0d0e0f',
  '000102030405060708090a0b0c0d0e0f',
  '0102030405060708090a0b0c0d0e0f10',
  '01234567891011121314151617181920',
  '12345678123412341234123456789abc',
  '123456781234567890abcddeefaabbcc',
  '12345678123456781234567812345678',
  '0123456789abcdef0123456789abcdef',
  '11111111222233334444555555555555',
  '4c4c454400002010802080c04f202020',
  'fefefefefefefefefefefefefefefefe',
  '00000000000000000123456789abcdef',
  '0123456789abcdef',
  '1234567890',
  '123456789',
  '0123456789',
  '12345678',
]);

/** @returns undefined where the machine has no identity, or this process cannot read it, as in most containers */
export function readHardware(sys = '/sys'): string | undefined {
  for (const source of sources) {
    const name = hardwareName(readText(join(sys, source)));
    if (name !== undefined) return name;
  }
  return undefined;
}

/** @returns undefined for a value that names no machine */
export function hardwareName(value: string): string | undefined {
  const digits = value.replaceAll('\0', '').trim().toLowerCase().replaceAll('-', '');
  const sound = /^[0-9a-f]{8,64}$/.test(digits) && new Set(digits).size > 2 && !defaults.has(digits);
  return sound ? createHash('sha256').update(`tartan hardware ${digits}`).digest('hex').slice(0, 32) : undefined;
}

function readText(path: string): string {
  try {
    return readFileSync(path, 'latin1');
  } catch {
    return '';
  }
}
