-- Triggers and their functions. They rewrite times and send notifications, so they come after the rows, and a restore
-- must see to the same.
CREATE FUNCTION collections.updatedat_trigger_fn() RETURNS trigger LANGUAGE plpgsql AS $$
begin
    new.updatedat = now();
    return new;
end;
$$;
CREATE FUNCTION collections.notifications_sweep_trigger_fn() RETURNS trigger LANGUAGE plpgsql AS $$
begin
    delete from collections.large_notifications where createdat < now() - interval '1 hour';
    return new;
end;
$$;
CREATE FUNCTION collections.notify_trigger_fn() RETURNS trigger LANGUAGE plpgsql AS $_$
declare
    row record;
    payload text;
    stored text;
begin
    row := case tg_op when 'DELETE' then old else new end;
    payload := encode(row.key::bytea, 'base64') || ' ' || date_part('epoch', now())::text || ' ' || tg_op || ' ';
    /* What does not fit into a notification lies in a table for an hour. */
    if length(payload) + 4 * ceil(length(row.proto)::float / 3) >= 7990 then
        insert into collections.large_notifications (proto) values (row.proto) returning id into stored;
        payload := payload || 'stored ' || stored;
    else
        payload := payload || 'inline ' || translate(encode(row.proto, 'base64'), E'\n', '');
    end if;
    perform pg_notify('pwc_' || tg_table_name, payload);
    return row;
end;
$_$;
CREATE FUNCTION core.set_updated_at_to_now() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at = now();
    RETURN NEW;
END;
$$;
DO $do$
DECLARE
    name text;
    fields text;
BEGIN
    FOR name, fields IN
        SELECT c.relname, string_agg(quote_literal(a.attname), ', ' ORDER BY a.attname <> 'key', a.attnum)
        FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND (a.attname = 'key' OR a.attname LIKE 'idx\_%')
        WHERE c.relnamespace = 'collections'::regnamespace AND c.relkind = 'r' AND c.relname NOT LIKE 'pre\_%'
        GROUP BY c.relname ORDER BY c.relname
    LOOP
        EXECUTE format('CREATE TRIGGER updatedat_trigger BEFORE INSERT OR DELETE OR UPDATE ON collections.%I'
            ' FOR EACH ROW EXECUTE FUNCTION collections.updatedat_trigger_fn()', name);
        EXECUTE format('CREATE TRIGGER notify_trigger AFTER INSERT OR DELETE OR UPDATE ON collections.%I'
            ' FOR EACH ROW EXECUTE FUNCTION collections.notify_trigger_fn(%s)', name, fields);
    END LOOP;
    FOREACH name IN ARRAY '{repos,commits,branches}'::text[] LOOP
        EXECUTE format($f$CREATE FUNCTION pfs.%I() RETURNS trigger LANGUAGE plpgsql AS $_$
DECLARE
    row record;
BEGIN
    row := CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
    PERFORM pg_notify(%L, TG_OP || ' ' || row.%I::text);
    RETURN row;
END;
$_$$f$, 'notify_' || name, 'pfs_' || name, CASE name WHEN 'commits' THEN 'int_id' ELSE 'id' END);
        EXECUTE format('CREATE TRIGGER notify AFTER INSERT OR DELETE OR UPDATE ON pfs.%I'
            ' FOR EACH ROW EXECUTE FUNCTION pfs.%I()', name, 'notify_' || name);
        EXECUTE format('CREATE TRIGGER set_updated_at BEFORE UPDATE ON pfs.%I'
            ' FOR EACH ROW EXECUTE FUNCTION core.set_updated_at_to_now()', name);
    END LOOP;
END $do$;
CREATE TRIGGER updatedat_trigger AFTER INSERT ON collections.large_notifications
    FOR EACH ROW EXECUTE FUNCTION collections.notifications_sweep_trigger_fn();
CREATE TRIGGER set_updated_at BEFORE UPDATE ON core.projects
    FOR EACH ROW EXECUTE FUNCTION core.set_updated_at_to_now();
