/** As much XML as the S3 protocol needs: elements out, and the two request bodies that hold lists in. */
import { S3Fault } from './fault.ts';

/** `['Part', [['PartNumber', '1']]]` is `<Part><PartNumber>1</PartNumber></Part>`. */
export type Element = readonly [name: string, content: string | number | boolean | readonly Element[]];

const NAMESPACE = 'http://s3.amazonaws.com/doc/2006-03-01/';

/** The document of a root element. Errors have no namespace. */
export function document(root: Element): string {
  const [name] = root;
  const text = elementText(root);
  const named = name === 'Error' ? text : text.replace(`<${name}>`, `<${name} xmlns="${NAMESPACE}">`);
  return `<?xml version="1.0" encoding="UTF-8"?>\n${named}`;
}

function elementText([name, content]: Element): string {
  const inner = Array.isArray(content)
    ? (content as readonly Element[]).map(elementText).join('')
    : escapeText(String(content));
  return `<${name}>${inner}</${name}>`;
}

function escapeText(text: string): string {
  return text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll('\r', '&#13;');
}

const ENTITIES: Readonly<Record<string, string>> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'" };

function unescapeText(text: string): string {
  return text.replaceAll(/&(#x[0-9a-fA-F]+|#[0-9]+|[a-z]+);/g, (entity, name: string) => {
    if (!name.startsWith('#')) return ENTITIES[name] ?? entity;
    return String.fromCodePoint(name.startsWith('#x') ? Number.parseInt(name.slice(2), 16) : Number(name.slice(1)));
  });
}

/** The children `names` of every `element` in `xml`, in order. MalformedXML where one is missing. */
export function listOf<Name extends string>(
  xml: string,
  element: string,
  names: readonly Name[],
): Record<Name, string>[] {
  const found = xml.matchAll(new RegExp(`<${element}>([\\s\\S]*?)</${element}>`, 'g'));
  return [...found].map(([, inner]) => {
    const entries = names.map((name) => {
      const child = new RegExp(`<${name}>([\\s\\S]*?)</${name}>`).exec(inner ?? '');
      if (child?.[1] === undefined) throw new S3Fault('MalformedXML', `A ${element} has no ${name}.`);
      return [name, unescapeText(child[1])];
    });
    return Object.fromEntries(entries) as Record<Name, string>;
  });
}
