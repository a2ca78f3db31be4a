// The page: signing in, the groups, and one conversation.

import { html, nothing, render } from 'lit-html'
import { decode, npubEncode, nsecEncode } from 'nostr-tools/nip19'
import { generateSecretKey } from 'nostr-tools/pure'
import { Chat } from './chat.js'

/** The person and the chat; the group that is shown; the state of the connection, and the last error, in words. */
let me, chat, shown, error, status = 'Connecting…'

const short = key => `${npubEncode(key).slice(0, 9)}…${npubEncode(key).slice(-4)}`
const clock = secs => new Date(secs * 1000).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' })
const hue = key => `--hue: ${parseInt(key.slice(0, 4), 16) % 360}`
const face = (key, name) => html`<span class="face" .style=${hue(key)} aria-hidden="true">${[...name][0] ?? '?'}</span>`
const fail = ({ message }) => draw(error = message)
/** Runs an action of the page, and tells its error. */
async function act(action) {
  error = undefined
  await Promise.resolve().then(action).then(draw, fail)
}
/** Gives a form's fields to `action`, and empties the form once it has succeeded. */
const submit = action => event => {
  event.preventDefault()
  const { target, target: { lastElementChild: button } } = event
  button.disabled = true
  const run = async () => action(Object.fromEntries(new FormData(target)))
  act(() => run().then(() => target.reset())).finally(() => { button.disabled = false })
}
function keyOf(text, wanted) {
  try {
    const { type, data } = decode(text.trim())
    if (type === wanted) return data
  } catch {} // The error below says more.
  throw new Error(`This is no ${wanted}. It begins with ${wanted}1 and has 63 characters: copy the whole of it.`)
}
function enter({ url, nsec, name }) {
  const secret = keyOf(nsec, 'nsec')
  if (!/^wss?:\/\/[^/]/.test(url)) throw new Error('The address of a relay begins with ws:// or wss://.')
  // A tab keeps its own key, so two tabs may be two persons.
  sessionStorage.setItem('me', JSON.stringify({ url, nsec, name }))
  me = { name, nsec }
  chat = new Chat({ url, secret, name }, { changed: draw, failed: fail, told: text => draw(status = text) })
}

const makeKey = ({ target }) => { target.form.nsec.value = nsecEncode(generateSecretKey()) }
const signIn = () => html`
  <main class="card"><h1>Chat</h1>
    <p>Groups with end-to-end encryption. The relay carries the messages and cannot read them.</p>
    <form @submit=${submit(enter)}>
      <label>Your name <input name="name" required maxlength="40" autocomplete="off" /></label>
      <label>Your secret key <input name="nsec" type="password" required placeholder="nsec1…" /></label>
      <button type="button" class="quiet" @click=${makeKey}>Make a new key</button>
      <label>Relay <input name="url" required value="ws://127.0.0.1:8080" spellcheck="false" /></label>
      <button>Open the chat</button>
    </form></main>`
const copy = (label, text) => html`
  <button class="quiet" @click=${() => act(() => navigator.clipboard.writeText(text))}>${label}</button>`
const sidebar = () => html`
  <nav aria-label="Groups">
    <header>${face(chat.key, me.name)}<p><strong>${me.name}</strong><br /><small>${short(chat.key)}</small></p></header>
    <div class="row">${copy('Copy npub', npubEncode(chat.key))}${copy('Copy secret key', me.nsec)}</div>
    <form class="row" @submit=${submit(async ({ name }) => { shown = await chat.found(name) })}>
      <input name="name" aria-label="Name of the new group" placeholder="New group" required maxlength="60" />
      <button>Make</button></form>
    <ul>${chat.groups.map(({ id, name, messages, isRemoved }) => html`<li>
      <button aria-current=${id === shown} @click=${() => draw(shown = id)}><strong>${name}</strong>
        <small>${isRemoved ? 'You were removed' : messages.at(-1)?.text ?? 'Nothing yet'}</small></button></li>`)}</ul>
  </nav>`

function people({ id, admin, members, messages, isRemoved }) {
  const isMine = admin === chat.key && !isRemoved
  const said = key => messages.findLast(({ by }) => by === key)?.name
  const named = key => (key === chat.key ? me.name : said(key) ?? short(key))
  return html`<aside aria-label="Members">
    <ul>${members.map(({ key }) => html`<li title=${npubEncode(key)}>${face(key, named(key))} ${named(key)}
      <small>${key === chat.key ? 'you' : key === admin ? 'founder' : ''}</small>
      ${!isMine || key === admin ? nothing : html`<button class="quiet" @click=${() => act(() => chat.remove(id, key))}
        aria-label="Remove ${named(key)}">Remove</button>`}</li>`)}</ul>
    ${isMine ? html`<form class="row" @submit=${submit(({ npub }) => chat.invite(id, keyOf(npub, 'npub')))}>
      <input name="npub" aria-label="npub of the person to invite" placeholder="npub1…" required autocomplete="off" />
      <button>Invite</button></form>` : nothing}
  </aside>`
}
const line = ({ by, name, text, at }) => html`<li class=${by === chat.key ? 'own' : ''}>${face(by, name)}
  <p><strong>${name}</strong> <small>${short(by)} · ${at ? clock(at) : 'waiting'}</small><br />${text}</p></li>`
const conversation = group => html`<main><h1>${group.name}</h1>${people(group)}
  <ol tabindex="0" aria-label="Messages" aria-live="polite">${group.messages.map(line)}
    ${group.outbox.filter(({ text }) => text).map(({ text }) => line({ by: chat.key, name: me.name, text }))}</ol>
  ${group.isRemoved ? html`<p class="dim">You were removed from this group. What you have read stays here.</p>`
    : !group.isFounded ? html`<p class="dim">You are alone here. Invite somebody by their npub.</p>`
    : html`<form class="row" @submit=${submit(({ text }) => chat.say(group.id, text))}>
      <input name="text" aria-label="Message" placeholder="Message" required maxlength="4000" autocomplete="off" />
      <button>Send</button></form>`}</main>`

function draw() {
  const group = chat?.groups.find(({ id }) => id === shown) ?? chat?.groups[0]
  shown = group?.id
  const main = group ? conversation(group) : html`<main><p>Make a group, or give your npub to a friend.</p></main>`
  render(html`${error ? html`<p class="bar error" role="alert">${error}</p>` : nothing}
    ${chat && status ? html`<p class="bar" role="status">${status}</p>` : nothing}
    ${chat ? html`<div class="chat">${sidebar()}${main}</div>` : signIn()}`, document.body)
  document.querySelector('ol')?.scrollTo(0, 1e9)
}
const kept = sessionStorage.getItem('me')
if (kept) enter(JSON.parse(kept))
draw()
