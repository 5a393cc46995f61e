-- The tables of Cloakroom's session store for PostgreSQL 14 or newer.
--
-- Cloakroom runs this by itself where a table is missing and its role may create
-- tables. Where it may not, run it once as the owner, in the schema of your choice:
--
--     psql -v ON_ERROR_STOP=1 --single-transaction -f schema.sql "$DATABASE"
--
-- and give Cloakroom's role what it needs:
--
--     grant usage on schema public to cloakroom;
--     grant select, insert, update, delete on cloakroom_session, cloakroom_epoch
--         to cloakroom;
--
-- It may be run again at any time: it changes nothing that is there and in order.

-- Sessions. In keys, a backslash is written \\ and the character NUL \0.
create table if not exists cloakroom_session (
    key text collate "C" primary key,
    -- Sealed: nothing here lets anybody in.
    value bytea not null,
    -- When it was last used: milliseconds since the Unix epoch.
    seen bigint not null,
    -- From then on the row counts as absent; it is removed some time later.
    expires timestamptz not null,
    -- Whose it is: base64url(SHA-256(user id)), without padding.
    user_name text collate "C" not null
);
create index if not exists cloakroom_session_expires
    on cloakroom_session (expires);
create index if not exists cloakroom_session_user_name
    on cloakroom_session (user_name);

-- Since when a user's sessions count: those that began earlier were signed out.
create table if not exists cloakroom_epoch (
    -- store.prefix, written as keys are.
    prefix text collate "C" not null,
    -- As user_name above.
    name text collate "C" not null,
    -- Microseconds since the Unix epoch.
    epoch bigint not null,
    expires timestamptz not null,
    primary key (prefix, name)
);
create index if not exists cloakroom_epoch_expires
    on cloakroom_epoch (expires);

-- Tells every replica what has changed, whoever changes it.
create or replace function cloakroom_tell() returns trigger
language plpgsql as $tell$
declare
    -- A channel's name has fewer than 64 bytes. Two schemas that share one hear of
    -- each other's changes, which does no harm.
    channel constant text := 'cloakroom_' || left(tg_table_schema::text, 13);
    payload text;
begin
    if tg_op = 'TRUNCATE' then
        payload := 'all';
    elsif tg_table_name = 'cloakroom_session' then
        payload := 'session ' || old.key;
    elsif tg_op = 'INSERT' then
        payload := 'epoch ' || new.name || ' ' || new.prefix;
    else
        payload := 'epoch ' || old.name || ' ' || old.prefix;
    end if;
    -- Longer ones are refused, and the change with them.
    if octet_length(payload) > 7900 then
        payload := 'all';
    end if;
    perform pg_catalog.pg_notify(channel, payload);
    return null;
end
$tell$;

-- A session that is used gets a later end, which nobody has to be told.
create or replace trigger cloakroom_session_changed
    after update on cloakroom_session for each row
    when (old.value is distinct from new.value
        or old.key is distinct from new.key
        or new.expires < old.expires - interval '1 second')
    execute function cloakroom_tell();
create or replace trigger cloakroom_session_deleted
    after delete on cloakroom_session for each row
    execute function cloakroom_tell();
create or replace trigger cloakroom_session_emptied
    after truncate on cloakroom_session for each statement
    execute function cloakroom_tell();
create or replace trigger cloakroom_epoch_changed
    after insert or update or delete on cloakroom_epoch for each row
    execute function cloakroom_tell();
create or replace trigger cloakroom_epoch_emptied
    after truncate on cloakroom_epoch for each statement
    execute function cloakroom_tell();
