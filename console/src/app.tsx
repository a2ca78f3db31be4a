// The frame of every page: navigation, the relay's state, the theme, the login.

import "@preact/signals";
import type { ComponentChildren } from "preact";
import { useEffect } from "preact/hooks";
import { shortNpub } from "./keys";
import { AccessPage } from "./pages/access";
import { ConfigurationPage } from "./pages/configuration";
import { FoundPage } from "./pages/found";
import { GroupPage } from "./pages/group";
import { GroupsPage } from "./pages/groups";
import { InspectorPage } from "./pages/inspector";
import { KeyPackagesPage } from "./pages/keypackages";
import { LoginPage } from "./pages/login";
import { NowPage } from "./pages/now";
import { type Name, type Route, route } from "./route";
import { type Theme, announcement, chooseTheme, logOut, login, reach, theme } from "./state";
import { Button } from "./ui/basic";
import { Icon } from "./ui/icon";

const PLACES: { name: Name; title: string; forOperator: boolean }[] = [
  { name: "now", title: "Now", forOperator: true },
  { name: "groups", title: "Groups", forOperator: false },
  { name: "keypackages", title: "KeyPackages", forOperator: false },
  { name: "access", title: "Access", forOperator: true },
  { name: "inspector", title: "Inspector", forOperator: false },
  { name: "configuration", title: "Configuration", forOperator: true },
];

// The place that a key may see: the one that the address names, else the first.
function placeFor(asked: Route | undefined, isOperator: boolean): Route {
  const first: Route = { name: isOperator ? "now" : "groups" };
  if (!asked) return first;
  const section = sectionOf(asked.name);
  const place = PLACES.find(({ name }) => name === section);
  const isAllowed = isOperator || (place && !place.forOperator && asked.name !== "found");
  return isAllowed ? asked : first;
}

function sectionOf(name: Name): Name {
  return name === "group" || name === "found" ? "groups" : name;
}

function content({ name, id }: Route): ComponentChildren {
  switch (name) {
    case "now":
      return <NowPage />;
    case "groups":
      return <GroupsPage />;
    case "found":
      return <FoundPage />;
    case "group":
      return <GroupPage key={id} id={id ?? ""} />;
    case "keypackages":
      return <KeyPackagesPage />;
    case "access":
      return <AccessPage />;
    case "inspector":
      return <InspectorPage />;
    case "configuration":
      return <ConfigurationPage />;
  }
}

const NEXT: Record<Theme, Theme> = { system: "light", light: "dark", dark: "system" };

function ThemeSwitch() {
  const next = NEXT[theme.value];
  const label = `Theme: ${theme.value}. Switch to ${next}.`;
  return (
    <button type="button" class="icon-button" aria-label={label} title={label} onClick={() => chooseTheme(next)}>
      <Icon name={theme.value} />
    </button>
  );
}

// Says what the relay's state is, if it is not well.
function ReachLine() {
  const now = reach.value;
  return (
    <div role="status" class="reach-place">
      {now.state === "away" && (
        <p class="reach bad">The relay does not answer. This page asks every 3 seconds, and goes on by itself.</p>
      )}
      {now.state === "not-ready" && <p class="reach warn">The relay is not ready: {now.reason}</p>}
    </div>
  );
}

function StateDot() {
  const [tone, text] = { well: ["good", "Ready"], "not-ready": ["warn", "Not ready"], away: ["bad", "No answer"] }[
    reach.value.state
  ] as [string, string];
  return (
    <span class={`state ${tone}`}>
      <span class="dot" aria-hidden="true" />
      {text}
    </span>
  );
}

export function App() {
  const current = login.value;
  const isOperator = current?.session.role === "operator";
  const place = placeFor(route.value, isOperator);
  const where = current ? PLACES.find(({ name }) => name === sectionOf(place.name))?.title : "Log in";
  const placeName = `${place.name} ${place.id ?? ""}`;

  useEffect(() => {
    document.title = `${where} · Console of ${location.host}`;
  }, [where]);
  useEffect(() => {
    // A new page is read from its heading on.
    if (current && route.value) document.getElementById("page-title")?.focus();
    document.querySelector(".nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
  }, [placeName]);

  return (
    <div class={current ? "frame" : "frame outside"}>
      <a class="skip" href="#main" onClick={skip}>
        Skip to the content
      </a>
      <header class="top">
        <a class="brand" href="/">
          <span class="mark" aria-hidden="true">
            r
          </span>
          <span class="brand-name">{location.host}</span>
        </a>
        <StateDot />
        <span class="grow" />
        {current && (
          <span class="who" title={current.session.npub}>
            {shortNpub(current.session.pubkey)}
          </span>
        )}
        <ThemeSwitch />
        {current && (
          <Button tone="quiet" onClick={() => logOut()}>
            Log out
          </Button>
        )}
      </header>
      <ReachLine />
      {current && (
        <nav class="nav" aria-label="Pages">
          {PLACES.filter(({ forOperator }) => isOperator || !forOperator).map(({ name, title }) => (
            <a key={name} href={`#/${name}`} aria-current={sectionOf(place.name) === name ? "page" : undefined}>
              {title}
            </a>
          ))}
          <p class="role">
            {isOperator ? "Operator of this relay" : "Admin of groups"}
            <br />
            rnostr {current.session.version}
          </p>
        </nav>
      )}
      <main id="main" tabIndex={-1}>
        {current ? content(place) : <LoginPage />}
      </main>
      <div class="unseen" aria-live="polite">
        {announcement.value}
      </div>
    </div>
  );
}

function skip(event: Event): void {
  event.preventDefault();
  document.getElementById("main")?.focus();
}
