-- What Cloakroom needs beside a table of connect-pg-simple, to share the sessions in it
-- with the application (store.layout = "express"), for PostgreSQL 14 or newer.
--
-- Cloakroom runs this by itself where something is missing and its role may. Where it
-- may not, run schema.sql and this once as the owner of the application's table, in the
-- schema of that table, which is called "session" here:
--
--     psql -v ON_ERROR_STOP=1 --single-transaction -f schema.sql -f shared.sql \
--         -c "select cloakroom_share('session')" "$DATABASE"
--
-- and give Cloakroom's role what it needs:
--
--     grant usage on schema public to cloakroom;
--     grant select, insert, update, delete on session, cloakroom_shared, cloakroom_epoch
--         to cloakroom;
--
-- The application's role needs nothing more than it has. Both may be run again at any
-- time, and must be where the application's table was made anew. To remove all of it:
--
--     drop function cloakroom_guard, cloakroom_tell_shared, cloakroom_tell cascade;
--     drop function cloakroom_share, cloakroom_end;
--     drop table cloakroom_shared, cloakroom_epoch, cloakroom_session;

-- What is known of a session beside its record, which is the application's.
create table if not exists cloakroom_shared (
    -- The name of the application's table.
    sessions text collate "C" not null,
    sid text collate "C" not null,
    -- What Cloakroom noted when it made the session. Null: the session has ended, and
    -- what is written under this id is not kept.
    facts text,
    -- From then on the row counts as absent; it is removed some time later.
    expires timestamptz not null,
    primary key (sid, sessions)
);
create index if not exists cloakroom_shared_expires
    on cloakroom_shared (expires);

-- A request of the application that is in flight during a logout saves the whole
-- session again. Its row is passed over here, and the application is told nothing.
--
-- It runs with the rights of its owner, since the application's role knows nothing of
-- cloakroom_shared. So each name in it says its schema, and nobody else may use it.
create or replace function cloakroom_guard() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $guard$
declare
    beside regclass := (select b.oid from pg_class s join pg_class b
        on b.relnamespace = s.relnamespace and b.relname = 'cloakroom_shared'
        where s.oid = tg_relid and has_schema_privilege(b.relnamespace, 'usage')
        and has_table_privilege(b.oid, 'select'));
    ended boolean;
begin
    -- Whoever has removed the one and left the other, or taken the owner of this his
    -- rights, shall not break the application.
    if beside is null then
        return new;
    end if;
    -- An end waits until this row is written, or this until the end is. The next
    -- statement sees what was done meanwhile. There are few locks for many ids: a server
    -- has room for some thousands, and one transaction may write many rows.
    perform pg_advisory_xact_lock_shared(hashtextextended(
        'cloakroom ' || (hashtextextended(new.sid, 0) & 255), tg_relid::bigint));
    execute format(
        'select exists (select from %s where sessions = $1 '
        'and sid = $2 and facts is null and expires > clock_timestamp())',
        beside)
        into ended using tg_table_name::text, new.sid::text;
    if ended then
        return null;
    end if;
    return new;
end
$guard$;
revoke all on function cloakroom_guard() from public;

-- Ends a session, and keeps its id from coming back for so many milliseconds. Says
-- whether there was one.
create or replace function cloakroom_end(sessions regclass, ended text, life bigint)
returns boolean
language plpgsql as $end$
declare
    name constant text := (select relname from pg_catalog.pg_class where oid = sessions);
    alive boolean;
begin
    -- The lock of the guard, and nobody beside.
    perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(
        'cloakroom ' || (pg_catalog.hashtextextended(ended, 0) & 255),
        sessions::oid::bigint));
    execute pg_catalog.format(
        'delete from %s where sid = $1 returning expire > clock_timestamp()', sessions)
        into alive using ended;
    insert into cloakroom_shared as held (sessions, sid, facts, expires)
        values (name, ended, null, clock_timestamp() + life * interval '1 millisecond')
        -- No later end may cut it short.
        on conflict on constraint cloakroom_shared_pkey do update set facts = null,
            expires = case when held.facts is null
                then greatest(held.expires, excluded.expires) else excluded.expires end;
    return coalesce(alive, false);
end
$end$;

-- Tells every replica what has changed, whoever changes it; and, where the column "expire"
-- was written, in which time zone, on which its meaning depends.
--
-- Transactions that tell something commit one after the other, all over the server. So
-- only what somebody may have a copy of is told: nobody has one of what was not there.
create or replace function cloakroom_tell_shared() returns trigger
language plpgsql as $tell$
declare
    -- As in cloakroom_tell.
    channel constant text := 'cloakroom_' || left(tg_table_schema::text, 13);
    zone text := '-';
    payload text := 'all';
begin
    if tg_op = 'UPDATE' and new.expire is distinct from old.expire then
        zone := extract(timezone from now())::bigint;
    end if;
    if tg_op <> 'TRUNCATE' then
        payload := 'shared ' || tg_relid::bigint || ' ' || zone || ' ' || old.sid;
    end if;
    -- Longer ones are refused, and the change with them.
    if octet_length(payload) > 7900 then
        payload := 'all';
    end if;
    perform pg_catalog.pg_notify(channel, payload);
    return null;
end
$tell$;

-- Makes the triggers on a table of connect-pg-simple.
create or replace function cloakroom_share(sessions regclass) returns void
language plpgsql as $share$
begin
    execute format('create or replace trigger cloakroom_shared_guard
        before insert or update of sid on %s for each row
        execute function cloakroom_guard()', sessions);
    execute format('create or replace trigger cloakroom_shared_removed
        after delete on %s for each row
        execute function cloakroom_tell_shared()', sessions);
    -- A session that is used gets a later end, which nobody has to be told. Some
    -- applications save the whole of it then, with the moment at which the cookie ends,
    -- on which nothing rests. It is found as text: a record may hold what json operators
    -- raise an error for, such as half a surrogate pair.
    execute format($changed$create or replace trigger cloakroom_shared_changed
        after update on %s for each row
        when (old.sid is distinct from new.sid
            or new.expire < old.expire - interval '1 second'
            or case when old.sess::text is distinct from new.sess::text then
                regexp_replace(old.sess::text,
                    '^([{]"cookie":[{][^{}]*?"expires":")[-+0-9.:TZ]+"', E'\\1"')
                is distinct from regexp_replace(new.sess::text,
                    '^([{]"cookie":[{][^{}]*?"expires":")[-+0-9.:TZ]+"', E'\\1"')
                else false end)
        execute function cloakroom_tell_shared()$changed$, sessions);
    execute format('create or replace trigger cloakroom_shared_emptied
        after truncate on %s for each statement
        execute function cloakroom_tell_shared()', sessions);
end
$share$;
