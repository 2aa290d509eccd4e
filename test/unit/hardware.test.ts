/** The identity of a machine: what names one, and what many machines share. */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { hardwareName, readHardware } from '../../src/agent/hardware.js';

it.each([
  '',
  'None',
  'To be filled by O.E.M.',
  'Not Settable',
  '00000000-0000-0000-0000-000000000000',
  'FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF',
  '03000200-0400-0500-0006-000700080009',
  '00020003-0004-0005-0006-000700080009',
  '03020100-0504-0706-0809-0a0b0c0d0e0f',
  '12345678-1234-5678-90AB-CDDEEFAABBCC',
  '01234567-8910-1112-1314-151617181920',
  'FEFEFEFE-FEFE-FEFE-FEFE-FEFEFEFEFEFE',
  '0000000000000000\0',
])("fault C10: '%s' names no machine", value => {
  expect(hardwareName(value)).toBeUndefined();
});

it('fault C10: a machine is named by a hash, by its UUID before its serial number, and by nothing where neither is', () => {
  const sys = mkdtempSync(join(tmpdir(), `tartan-sys-${process.pid}-`));
  try {
    expect(readHardware(sys)).toBeUndefined();
    mkdirSync(join(sys, 'firmware/devicetree/base'), { recursive: true });
    writeFileSync(join(sys, 'firmware/devicetree/base/serial-number'), '10000000a1b2c3d4\0');
    const bySerial = readHardware(sys);
    expect(bySerial).toMatch(/^[0-9a-f]{32}$/);
    mkdirSync(join(sys, 'class/dmi/id'), { recursive: true });
    const uuid = '4C4C4544-0042-3510-8052-B4C04F564433';
    writeFileSync(join(sys, 'class/dmi/id/product_uuid'), `${uuid}\n`);
    expect(readHardware(sys)).toBe(hardwareName(uuid.toLowerCase()));
    expect(readHardware(sys)).not.toBe(bySerial);
    expect(readHardware(sys)).not.toContain(uuid.slice(0, 8).toLowerCase());
  } finally {
    rmSync(sys, { recursive: true });
  }
});
